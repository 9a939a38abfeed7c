import time
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.model.digest import Digest
from instar.model.manifest import Base, Chunk, Codec, File, Frame, Manifest, Pack, Patch
from instar.model.names import Name, ProductName, TreePath
from instar.model.version import Version
from instar.policy.route import (
    MAX_GAP,
    MAX_RANGE,
    FromFrame,
    FromOld,
    FromPatch,
    Inventory,
    Means,
    OldChunk,
    Piece,
    Place,
    Plan,
    group_pieces,
    plan_route,
)

ALL = frozenset(Codec)
PACK = Pack(Digest.of(b"pack"), 1 << 40)
PATCHES = Pack(Digest.of(b"patches"), 1 << 40)


def digest(text: object) -> Digest:
    return Digest.of(f"{text}".encode())


def manifest(
    files: dict[str, list[str]],
    *,
    frames: dict[str, int],
    patches: dict[str, list[Patch]] | None = None,
    chunk_size: int = 100,
) -> Manifest:
    """Files as lists of chunks named like "frame.letter"; frames by name with their compressed length."""
    names = list(dict.fromkeys(chunk for chunks in files.values() for chunk in chunks))
    numbers = list(frames)
    in_frame: dict[str, int] = {}
    table = []
    for name in names:
        frame = name.split(".")[0]
        offset = in_frame.get(frame, 0)
        in_frame[frame] = offset + chunk_size
        table.append(Chunk(digest(name), chunk_size, numbers.index(frame), offset))
    starts = [sum(list(frames.values())[:n]) for n in range(len(frames))]
    return Manifest(
        product=ProductName("app"),
        version=Version("2"),
        platform=Name("linux-x86_64"),
        files=tuple(
            File(
                TreePath(path),
                chunk_size * len(chunks),
                digest(path),
                False,
                tuple(names.index(chunk) for chunk in chunks),
                tuple((patches or {}).get(path, ())),
            )
            for path, chunks in files.items()
        ),
        chunks=tuple(table),
        frames=tuple(
            Frame(0, start, length, max(1, in_frame.get(name, 1)), digest(f"frame {name}"))
            for start, (name, length) in zip(starts, frames.items(), strict=True)
        ),
        packs=(PACK, PATCHES),
    )


def patch(
    length: int, size: int, *, at: int = 0, base: str = "old", offset: int = 0, codec: Codec = Codec.HDIFF
) -> Patch:
    return Patch(offset, length, (Base(digest(base), 0, 50),), codec, 1, at, size, digest(f"patch {at}"))


def holding(*files: str, chunks: Iterable[str] = (), codecs: frozenset[Codec] = ALL) -> Inventory:
    return Inventory(
        {digest(file): Place(0, TreePath(file)) for file in files},
        {digest(chunk): OldChunk(Place(0, TreePath("old")), 7) for chunk in chunks},
        codecs,
    )


def means(plan: Plan) -> dict[str, Means]:
    return {str(step.file.path): step.means for step in plan.steps}


def test_a_device_with_nothing_fetches_the_frames_in_one_request() -> None:
    plan = plan_route(manifest({"a": ["f.1", "g.1"], "b": ["g.2"]}, frames={"f": 60, "g": 70}), Inventory())
    assert (plan.download_size, plan.full_size, plan.requests) == (130, 130, 1)
    assert means(plan) == {"a": Means.CHUNKS, "b": Means.CHUNKS}
    assert plan.steps[0].segments == (FromFrame(0, 0, 100), FromFrame(1, 0, 100))
    assert plan.download_by_means == {Means.CHUNKS: 130}
    assert plan.result_by_means == {Means.CHUNKS: 300}


def test_a_file_that_is_here_is_copied_from_wherever_it_is() -> None:
    release = manifest({"a": ["f.1"]}, frames={"f": 60})
    inventory = Inventory({digest("a"): Place(3, TreePath("else"))}, {}, ALL)
    plan = plan_route(release, inventory)
    assert plan.steps[0].segments == (FromOld(Place(3, TreePath("else")), 0, 100, digest("a")),)
    assert (plan.download_size, plan.requests, plan.full_size) == (0, 0, 60)
    assert plan.result_by_means == {Means.COPY: 100}


def test_an_empty_file_costs_nothing() -> None:
    plan = plan_route(manifest({"a": []}, frames={}), Inventory())
    assert plan.steps[0].segments == ()
    assert plan.download_size == 0


def test_chunks_that_are_here_are_not_fetched() -> None:
    plan = plan_route(manifest({"a": ["f.1", "g.1", "f.2"]}, frames={"f": 60, "g": 70}), holding(chunks=["g.1"]))
    assert [piece.length for piece in plan.pieces] == [60]
    assert plan.steps[0].segments[1] == FromOld(Place(0, TreePath("old")), 7, 100, digest("g.1"))


def test_the_cheaper_of_patch_and_chunks_is_taken() -> None:
    def plan_with(size: int) -> Plan:
        patches = {"a": [patch(200, size)]}
        return plan_route(manifest({"a": ["f.1", "f.2"]}, frames={"f": 60}, patches=patches), holding("old"))

    assert means(plan_with(59)) == {"a": Means.PATCH}
    assert plan_with(59).download_by_means == {Means.PATCH: 59}
    assert means(plan_with(60)) == {"a": Means.CHUNKS}


def test_a_patch_whose_base_is_not_here_is_not_taken() -> None:
    release = manifest({"a": ["f.1"]}, frames={"f": 60}, patches={"a": [patch(100, 5, base="older")]})
    assert means(plan_route(release, holding("old"))) == {"a": Means.CHUNKS}


def test_a_patch_that_this_device_cannot_decode_is_not_taken() -> None:
    patches = {"a": [patch(100, 5), patch(100, 9, at=5, codec=Codec.ZSTD_PREFIX)]}
    release = manifest({"a": ["f.1"]}, frames={"f": 60}, patches=patches)
    assert plan_route(release, holding("old")).download_size == 5
    assert plan_route(release, holding("old", codecs=frozenset({Codec.ZSTD_PREFIX}))).download_size == 9
    assert plan_route(release, holding("old", codecs=frozenset())).download_size == 60


def test_frames_that_are_fetched_anyway_cost_nothing_more() -> None:
    # b has no patch and needs the frame; then the patch of a is not worth its bytes.
    release = manifest({"a": ["f.1"], "b": ["f.2"]}, frames={"f": 60}, patches={"a": [patch(100, 5)]})
    plan = plan_route(release, holding("old"))
    assert means(plan) == {"a": Means.CHUNKS, "b": Means.CHUNKS}
    assert plan.download_size == 60


def test_one_frame_for_many_files_beats_their_patches_together() -> None:
    files = {f"file{n}": [f"f.{n}"] for n in range(10)}
    patches = {f"file{n}": [patch(100, 7, at=7 * n)] for n in range(10)}
    plan = plan_route(manifest(files, frames={"f": 60}, patches=patches), holding("old"))
    assert plan.download_size == 60
    plan = plan_route(manifest(files, frames={"f": 71}, patches=patches), holding("old"))
    assert plan.download_size == 70


def test_regions_of_a_large_file_are_decided_one_by_one() -> None:
    patches = [patch(200, 20, offset=100), patch(100, 90, at=20, offset=300)]
    release = manifest(
        {"a": ["f.1", "g.1", "g.2", "h.1"]},
        frames={"f": 60, "g": 70, "h": 80},
        patches={"a": patches},
    )
    plan = plan_route(release, holding("old", chunks=["f.1"]))
    assert plan.download_by_means == {Means.PATCH: 20, Means.CHUNKS: 80}
    assert [type(segment) for segment in plan.steps[0].segments] == [FromOld, FromPatch, FromFrame]
    assert means(plan) == {"a": Means.CHUNKS}


def test_patches_that_overlap_are_not_both_taken() -> None:
    patches = [patch(200, 20), patch(200, 10, at=20, offset=100), patch(100, 50, at=30)]
    release = manifest({"a": ["f.1", "g.1", "h.1"]}, frames={"f": 90, "g": 90, "h": 90}, patches={"a": patches})
    plan = plan_route(release, holding("old"))
    assert plan.download_size == 60
    assert sum(s.patch.length for s in plan.steps[0].segments if isinstance(s, FromPatch)) == 300


@pytest.mark.parametrize(("offset", "length"), [(50, 150), (0, 150), (50, 100)])
def test_a_patch_that_ends_inside_a_chunk_is_left_alone(offset: int, length: int) -> None:
    release = manifest({"a": ["f.1", "f.2"]}, frames={"f": 60}, patches={"a": [patch(length, 5, offset=offset)]})
    assert means(plan_route(release, holding("old"))) == {"a": Means.CHUNKS}


def test_two_files_with_the_same_content_cost_one() -> None:
    release = manifest({"a": ["f.1"], "b": ["f.1"]}, frames={"f": 60}, patches={"a": [patch(100, 5)]})
    files = tuple(replace(file, digest=digest("same"), patches=release.files[0].patches) for file in release.files)
    plan = plan_route(replace(release, files=files), holding("old"))
    assert plan.download_size == 5
    assert plan.result_by_means == {Means.PATCH: 200}


def test_the_inventory_knows_files_and_chunks_by_content_and_leaves_out_what_is_damaged() -> None:
    old = manifest({"a": ["f.1", "f.2"], "b": ["f.2", "f.3"]}, frames={"f": 60})
    other = manifest({"c": ["f.2"], "a": ["f.1", "f.2"]}, frames={"f": 60})
    inventory = Inventory.of([old, other], codecs=[Codec.HDIFF], without=[Place(0, TreePath("a"))])
    assert inventory.files == {
        digest("b"): Place(0, TreePath("b")),
        digest("c"): Place(1, TreePath("c")),
        digest("a"): Place(1, TreePath("a")),
    }
    assert inventory.chunks[digest("f.3")] == OldChunk(Place(0, TreePath("b")), 100)
    assert inventory.chunks[digest("f.2")] == OldChunk(Place(0, TreePath("b")), 0)
    assert inventory.chunks[digest("f.1")] == OldChunk(Place(1, TreePath("a")), 0)
    assert inventory.codecs == {Codec.HDIFF}


def piece(offset: int, length: int, key: str = "packs/aa/x.pack") -> Piece:
    return Piece(key, offset, length, digest(offset), Means.CHUNKS)


def test_pieces_that_lie_close_are_fetched_in_one_request() -> None:
    near, far = piece(0, 10), piece(10 + MAX_GAP, 10)
    assert [r.length for r in group_pieces([far, near])] == [20 + MAX_GAP]
    assert len(group_pieces([near, piece(11 + MAX_GAP, 10)])) == 2
    assert len(group_pieces([near, piece(10, 10, "packs/bb/y.pack")])) == 2


def test_a_long_run_is_split_for_several_connections() -> None:
    size = MAX_RANGE // 4
    ranges = group_pieces([piece(n * size, size) for n in range(10)])
    assert [len(r.pieces) for r in ranges] == [4, 4, 2]
    assert len(group_pieces([piece(0, 3 * MAX_RANGE)])) == 1


def test_pieces_that_overlap_are_fetched_apart() -> None:
    assert [r.length for r in group_pieces([piece(0, 10), piece(5, 10)])] == [10, 10]


@st.composite
def releases(draw: st.DrawFn) -> tuple[Manifest, Inventory]:
    frames = {f"f{n}": draw(st.integers(1, 200)) for n in range(4)}
    chunk = st.builds("{}.{}".format, st.sampled_from(list(frames)), st.integers(0, 3))
    files = draw(st.dictionaries(st.sampled_from("abcdef"), st.lists(chunk, max_size=5), min_size=1))
    patches: dict[str, list[Patch]] = {}
    at = 0
    for path, chunks in files.items():
        for _ in range(draw(st.integers(0, 3)) if chunks else 0):
            first = draw(st.integers(0, len(chunks) - 1))
            count = draw(st.integers(1, len(chunks) - first))
            size = draw(st.integers(1, 200))
            codec, base = draw(st.sampled_from(Codec)), draw(st.sampled_from(["old", "older"]))
            patches.setdefault(path, []).append(
                patch(100 * count, size, at=at, offset=100 * first, codec=codec, base=base),
            )
            at += size
    inventory = holding(
        *draw(st.sets(st.sampled_from(["old", *"abc"]))),
        chunks=draw(st.sets(chunk)),
        codecs=frozenset(draw(st.sets(st.sampled_from(Codec)))),
    )
    return manifest(files, frames=frames, patches=patches), inventory


@settings(max_examples=60)
@given(releases())
def test_every_plan_makes_every_file_whole_from_what_is_here_or_fetched(made: tuple[Manifest, Inventory]) -> None:
    release, inventory = made
    plan = plan_route(release, inventory)
    fetched = {(piece.key, piece.offset) for piece in plan.pieces}
    assert len(fetched) == len(plan.pieces)
    for step in plan.steps:
        content: list[Digest | None] = []
        for segment in step.segments:
            match segment:
                case FromOld():
                    assert segment.place in inventory.files.values() or segment.digest in inventory.chunks
                    content += [segment.digest] * (segment.length // 100)
                case FromFrame():
                    frame = release.frames[segment.frame]
                    assert (PACK.key, frame.offset) in fetched
                    inside = [c for c in release.chunks if c.frame == segment.frame]
                    for at in range(segment.offset, segment.offset + segment.length, 100):
                        content += [c.digest for c in inside if c.offset == at]
                case FromPatch():
                    assert segment.patch in step.file.patches
                    assert segment.patch.codec in inventory.codecs
                    assert (PATCHES.key, segment.patch.at) in fetched
                    content += [None] * (segment.patch.length // 100)
        if step.file.digest in inventory.files and step.file.size:
            assert content == [step.file.digest] * (step.file.size // 100)
            continue
        wanted = [release.chunks[number].digest for number in step.file.chunks]
        assert [made or want for made, want in zip(content, wanted, strict=True)] == wanted
    chunks_only = plan_route(release, replace(inventory, codecs=frozenset()))
    assert sum(p.length for p in plan.pieces) <= sum(p.length for p in chunks_only.pieces)


def test_ten_thousand_chunks_are_planned_in_no_time() -> None:
    files = {f"file{n}": [f"f{n // 10}.{n}.{m}" for m in range(10)] for n in range(1000)}
    frames = {f"f{n}": 100 for n in range(100)}
    patches = {f"file{n}": [patch(1000, 9, at=9 * n)] for n in range(1000)}
    names = [f"f{n // 10}.{n}.{m}" for n in range(1000) for m in range(10)]
    table = tuple(Chunk(digest(name), 100, n // 100, 100 * (n % 100)) for n, name in enumerate(names))
    small = manifest({}, frames=frames)
    release = replace(
        small,
        files=tuple(
            File(TreePath(path), 1000, digest(path), False, tuple(range(10 * n, 10 * n + 10)), tuple(patches[path]))
            for n, path in enumerate(files)
        ),
        chunks=table,
        frames=tuple(replace(frame, size=10_000) for frame in small.frames),
    )
    begun = time.process_time()
    plan = plan_route(release, holding("old", chunks=names[::2]))
    # Some 0.03 s; the bound is for a machine that is ten times slower, and against a quadratic planner.
    assert time.process_time() - begun < 1
    assert plan.download_size == 9000
