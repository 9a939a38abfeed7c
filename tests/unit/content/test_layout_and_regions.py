from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.content.build import Effort
from instar.content.downloads import Downloads
from instar.content.drafts import WHOLE_FILE, even_parts, part_of_old
from instar.content.layout import FRAME_TARGET, Content, FramePlan, Group, known_chunks, plan_frames, worn_out
from instar.content.patches import BaseFiles
from instar.content.rebuild import Source, make_tree
from instar.content.regions import MAX_RUN, WINDOW, SampledIndex
from instar.model.digest import Digest
from instar.model.manifest import MAX_PATCH_OUTPUT, Chunk, File, Frame, Manifest, Pack
from instar.model.names import Name, ProductName, TreePath
from instar.model.version import Version
from tests.support.releases_on_disk import Shelf, edited, some_bytes

MIB = 1 << 20


def digest(text: object) -> Digest:
    return Digest.of(f"{text}".encode())


def content(path: str, *sizes: int, kind: str = "elf", chunks: str | None = None) -> Content:
    named = chunks or path
    rows = tuple((digest(f"{named} {n}"), size) for n, size in enumerate(sizes))
    return Content(digest(path), path, kind, rows)


def laid_out(frames: list[FramePlan]) -> list[list[str]]:
    return [[f"{content.path} {number}" for content, number in frame.chunks] for frame in frames]


def test_alike_files_share_a_frame_in_the_order_of_their_paths() -> None:
    contents = [content("b", 10), content("c", 10, kind=".txt"), content("a", 10, 10)]
    frames = plan_frames(contents, elsewhere=(), again=(), patched=())
    assert laid_out(frames) == [["c 0", "a 0", "a 1", "b 0"]]


def test_content_that_nobody_has_a_patch_for_lies_apart() -> None:
    contents = [content("a", 10), content("b", 10)]
    frames = plan_frames(contents, elsewhere=(), again=(), patched={digest("a")})
    assert laid_out(frames) == [["b 0"], ["a 0"]]
    assert [frame.group for frame in frames] == [Group.NO_PATCH, Group.PATCHED]


def test_a_chunk_that_patched_and_unpatched_files_share_lies_with_the_unpatched() -> None:
    contents = [content("a", 10, 11, chunks="x"), content("b", 10, chunks="x")]
    frames = plan_frames(contents, elsewhere=(), again=(), patched={digest("a")})
    assert laid_out(frames) == [["b 0"], ["a 1"]]


def test_what_is_stored_again_lies_apart_and_what_is_elsewhere_not_at_all() -> None:
    contents = [content("a", 10, 10, 10)]
    again, elsewhere = {digest("a 1")}, {digest("a 2")}
    assert laid_out(plan_frames(contents, elsewhere=elsewhere, again=again, patched=())) == [["a 0"], ["a 1"]]


def test_no_chunk_is_stored_twice() -> None:
    contents = [content("a", 10, 10, chunks="x"), content("b", 10, 10, chunks="x")]
    assert laid_out(plan_frames(contents, elsewhere=(), again=(), patched=())) == [["a 0", "a 1"]]


def test_a_large_file_gets_even_frames_of_its_own() -> None:
    many = FRAME_TARGET // (100 << 10) * 3 // 2
    contents = [content("a", 10), content("big", *[100 << 10] * many), content("c", 10)]
    frames = plan_frames(contents, elsewhere=(), again=(), patched=())
    assert laid_out(frames)[0] == ["a 0"]
    assert laid_out(frames)[-1] == ["c 0"]
    big = [len(frame.chunks) for frame in frames[1:-1]]
    assert len(big) == 2
    assert abs(big[0] - big[1]) <= 1


def test_a_frame_ends_before_the_file_that_would_overfill_it() -> None:
    size = FRAME_TARGET * 2 // 3
    frames = plan_frames([content("a", size), content("b", size)], elsewhere=(), again=(), patched=())
    assert laid_out(frames) == [["a 0"], ["b 0"]]


def release(*sizes: int) -> Manifest:
    total = sum(sizes)
    chunks = tuple(Chunk(digest(f"a {n}"), size, 0, sum(sizes[:n])) for n, size in enumerate(sizes))
    return Manifest(
        ProductName("app"),
        Version("1"),
        Name("linux"),
        (File(TreePath("a"), total, digest("a"), False, tuple(range(len(sizes)))),),
        chunks=chunks,
        frames=(Frame(0, 0, 10, total, digest("frame")),),
        packs=(Pack(digest("pack"), 10),),
    )


@pytest.mark.parametrize(("needed", "stored_again"), [((0, 1, 2), False), ((0, 1), False), ((2,), True)])
def test_chunks_in_frames_that_are_hardly_used_any_more_are_stored_again(
    needed: tuple[int, ...],
    stored_again: bool,  # what is expected
) -> None:
    known = known_chunks([release(500, 400, 100)])
    rows = tuple((digest(f"a {n}"), (500, 400, 100)[n]) for n in needed)
    found = worn_out([Content(digest("b"), "b", "elf", (*rows, (digest("new"), 7)))], known)
    assert found == ({row[0] for row in rows} if stored_again else set())


def old_file(path: str, size: int = 100) -> File:
    return File(TreePath(path), size, digest(path), False, ())


@pytest.mark.parametrize(
    ("path", "size", "base"),
    [
        ("lib/x.so.1", 100, "lib/x.so.1"),
        ("lib/x.so.1", 10_000, "lib/x.so.1"),
        ("lib/x.so.2", 100, "lib/x.so.1"),
        ("lib/x.so.2", 210, "lib/x.so.10"),
        ("lib/x.so.2", 10_000, None),
        ("lib/y.so", 100, None),
        ("app-1.2.4.info/RECORD", 100, "app-1.2.3.info/RECORD"),
    ],
)
def test_a_base_is_the_same_path_or_the_closest_of_a_similar_name(path: str, size: int, base: str | None) -> None:
    files = BaseFiles([old_file("lib/x.so.1"), old_file("lib/x.so.10", 200), old_file("app-1.2.3.info/RECORD")])
    found = files.choose(TreePath(path), size)
    assert (found and str(found.path)) == base


def test_an_empty_file_is_no_base() -> None:
    assert BaseFiles([old_file("a", 0)]).choose(TreePath("a"), 10) is None


def test_the_windows_that_content_came_from_are_found_wherever_they_are(tmp_path: Path) -> None:
    old = some_bytes("old", 4 * MIB)
    (tmp_path / "old").write_bytes(old)
    index = SampledIndex(tmp_path / "old")
    run = edited(old[1_500_001:1_700_001], (100_000, b"changed here"))
    spans = index.windows_like(run)
    assert any(start <= 1_500_001 and start + length >= 1_700_001 for start, length in spans)
    assert sum(length for _, length in spans) <= 4 * len(run) + 8 * WINDOW
    assert all(a + n < b for (a, n), (b, _) in pairwise(spans))


def test_content_that_is_nowhere_has_no_windows(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(some_bytes("old", MIB))
    index = SampledIndex(tmp_path / "old")
    assert index.windows_like(some_bytes("new", 100_000)) == []
    assert index.windows_like(b"short") == []
    assert index.windows_like(bytes(100_000)) == []


def test_an_empty_old_file_has_no_windows(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"")
    assert SampledIndex(tmp_path / "old").windows_like(some_bytes("new", 100_000)) == []


def test_padding_says_nothing_about_where_content_came_from(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(bytes(4 * MIB))
    assert SampledIndex(tmp_path / "old").windows_like(bytes(MIB)) == []


def test_a_whole_file_patch_fits_what_a_manifest_allows() -> None:
    assert max(WHOLE_FILE, MAX_RUN) <= MAX_PATCH_OUTPUT


@given(st.lists(st.integers(1, 128 << 10), min_size=1, max_size=40), st.integers(1, 1 << 20))
def test_a_large_file_is_patched_in_even_parts_that_cover_it(sizes: list[int], extra: int) -> None:
    # Chunks of megabytes, so that a few of them make a file of several parts.
    rows = [size * 100 + extra for size in sizes]
    parts = even_parts(content("a", *rows), sum(rows))
    assert [n for first, end in parts for n in range(first, end)] == list(range(len(rows)))
    assert all(first < end for first, end in parts)
    assert all(sum(rows[first:end]) <= (32 << 20) + max(rows) for first, end in parts)


def test_a_part_is_patched_from_the_same_part_of_the_old_file_and_what_is_around() -> None:
    assert part_of_old(100, (0, 70), 70) == (0, 100)
    start, length = part_of_old(60 * MIB, (30 * MIB, 55 * MIB), 55 * MIB)
    assert start < 60 * MIB * 30 // 55 < start + 8 * MIB
    assert start + length == 60 * MIB
    assert part_of_old(60 * MIB, (0, 30 * MIB), 55 * MIB)[0] == 0
    assert part_of_old(1, (30 * MIB, 55 * MIB), 55 * MIB) == (0, 1)


def test_a_file_of_several_parts_is_patched_and_made_again(tmp_path: Path) -> None:
    old = some_bytes("a", 20 * MIB) * 2
    shelf = Shelf(tmp_path)
    shelf.add("1", {"a": old}, effort=Effort.FAST)
    new = old[: 10 * MIB] + b"inserted" + old[10 * MIB : 39 * MIB] + b"behind"
    manifest = shelf.add("2", {"a": new}, effort=Effort.FAST).manifest
    (file,) = manifest.files
    assert {patch.base[0].length < 40 * MIB for patch in file.patches} == {True}
    source = Source(shelf.tree("1"), shelf.manifests[0])
    plan = make_tree(manifest, [source], Downloads(tmp_path / "d"), tmp_path / "made", reader=shelf.storage)
    assert (tmp_path / "made" / "a").read_bytes() == new
    assert plan.download_size < 6000
