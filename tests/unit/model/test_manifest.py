import json
from dataclasses import replace

import pytest

from instar.model.digest import Digest
from instar.model.manifest import Base, Chunk, Codec, File, Frame, Link, Manifest, Pack, Patch
from instar.model.names import Name, ProductName, TreePath
from instar.model.version import Version

CONTENT = Digest.of(b"hello world")


def make_file(path: str = "bin/app", **changes: object) -> File:
    patch = Patch(0, 11, (Base(Digest.of(b"old"), 0, 3),), Codec.ZSTD_PREFIX, 0, 30, 10, CONTENT)
    return replace(File(TreePath(path), 11, CONTENT, True, (0, 1), (patch,)), **changes)  # type: ignore[arg-type]


def make_manifest(*files: File, **changes: object) -> Manifest:
    values: dict[str, object] = {
        "product": ProductName("myapp"),
        "version": Version("1.2.0"),
        "platform": Name("linux-x86_64"),
        "files": files or (make_file(),),
        "chunks": (Chunk(Digest.of(b"hello "), 6, 0, 0), Chunk(Digest.of(b"world"), 5, 0, 6)),
        "frames": (Frame(0, 0, 20, 11, CONTENT),),
        "packs": (Pack(Digest.of(b"pack"), 40),),
    }
    return Manifest(**(values | changes))  # type: ignore[arg-type]


def test_a_manifest_reads_what_it_writes() -> None:
    manifest = make_manifest(
        links=(Link(TreePath("bin/link"), "app"),),
        directories=(TreePath("empty"),),
        notes="New: everything.",
        meta={"sbom": "sha256:00"},
    )
    again = Manifest.from_json(manifest.to_json())
    assert again == manifest
    assert again.to_json() == manifest.to_json()
    assert again.size == 11


def test_rows_say_only_what_the_row_before_does_not() -> None:
    manifest = make_manifest()
    document = json.loads(manifest.to_json())
    assert [row[1:] for row in document["chunks"]] == [[6, 0, 0], [5]]
    assert document["files"][0]["chunks"] == [2]
    document["chunks"] = [
        [*row[:2], 0, chunk.offset] for row, chunk in zip(document["chunks"], manifest.chunks, strict=True)
    ]
    document["files"][0]["chunks"] = [[0, 1], [1, 1]]
    assert Manifest.from_json(json.dumps(document).encode()) == manifest


def test_files_that_share_chunks_or_take_them_out_of_order_read_as_they_were() -> None:
    orders = [(0, 1), (1, 0), (0, 1)]
    files = [make_file(f"f{n}", chunks=order, patches=()) for n, order in enumerate(orders)]
    swapped = (Chunk(Digest.of(b"b"), 5, 0, 6), Chunk(Digest.of(b"a"), 6, 0, 0))
    for manifest in (make_manifest(*files), make_manifest(*files, chunks=swapped)):
        assert Manifest.from_json(manifest.to_json()) == manifest


def test_the_tree_digest_ignores_how_the_tree_is_made_and_nothing_else() -> None:
    one = make_manifest()
    assert make_manifest(make_file(patches=()), notes="x").tree_digest == one.tree_digest
    different = [
        make_manifest(make_file(executable=False)),
        make_manifest(make_file("bin/other")),
        make_manifest(make_file(digest=Digest.of(b"other"))),
        make_manifest(links=(Link(TreePath("l"), "bin"),)),
        make_manifest(directories=(TreePath("empty"),)),
    ]
    assert len({m.tree_digest for m in [one, *different]}) == 6


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        (lambda: make_manifest(make_file(), make_file()), "twice"),
        (lambda: make_manifest(make_file("a/B"), make_file("a/b")), "case-insensitive"),
        (lambda: make_manifest(make_file("A/x"), make_file("a/y")), "case-insensitive"),
        (lambda: make_manifest(make_file("a"), make_file("a/b")), "inside the file a"),
        (lambda: make_manifest(make_file("l/x"), links=(Link(TreePath("l"), "y"),)), "inside the link l"),
        (lambda: make_manifest(links=(Link(TreePath("l"), "../x"),)), "not inside the release"),
        (lambda: make_manifest(make_file("a:b"), platform=Name("windows-amd64")), "Windows"),
        (lambda: make_manifest(links=(Link(TreePath("l"), "x"),), platform=Name("windows-amd64")), "symbolic"),
        (lambda: make_manifest(make_file(chunks=(0,))), "do not add up"),
        (lambda: make_manifest(make_file(chunks=(0, 7))), "do not exist"),
        (lambda: make_manifest(frames=(Frame(0, 30, 20, 11, CONTENT),)), "not lie in its pack"),
        (lambda: make_manifest(frames=(Frame(3, 0, 20, 11, CONTENT),)), "not lie in its pack"),
        (lambda: make_manifest(frames=(Frame(0, -1, 20, 11, CONTENT),)), "not lie in its pack"),
        (lambda: make_manifest(frames=(Frame(0, 0, 20, 1 << 40, CONTENT),)), "not lie in its pack"),
        (lambda: make_manifest(chunks=(Chunk(CONTENT, 6, 0, 6), Chunk(CONTENT, 5, 0, 0))), "not lie in its frame"),
        (lambda: make_manifest(notes="x" * (2 << 20)), "notes"),
        (lambda: make_manifest(meta={"k": "x" * (1 << 20)}), "metadata"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(manifest: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        manifest()  # type: ignore[operator]


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 1},
        {"offset": -1},
        {"length": 0},
        {"base": ()},
        {"base": (Base(CONTENT, -1, 3),)},
        {"base": (Base(CONTENT, 0, 1 << 40),)},
        {"pack": 1},
        {"at": 35},
        {"size": 0},
    ],
)
def test_a_patch_out_of_bounds_is_refused(change: dict[str, object]) -> None:
    file = make_file()
    with pytest.raises(ValueError, match=r"patch of bin/app is out of bounds"):
        make_manifest(replace(file, patches=(replace(file.patches[0], **change),)))  # type: ignore[arg-type]


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"twice.*not lie in its pack"):
        make_manifest(make_file(), make_file(), frames=(Frame(0, 30, 20, 11, CONTENT),))


@pytest.mark.parametrize(
    "damage",
    [
        {"format": "instar-manifest-2"},
        {"product": 3},
        {"version": "x"},
        {"files": 3},
        {"files": [{"path": "a"}]},
        {"files": [{"path": "a", "size": True, "sha256": "0" * 64}]},
        {"files": [{"path": "a", "size": 3, "sha256": "0" * 64, "chunks": [[0, 1 << 60]]}]},
        {"files": [{"path": "a", "size": 1 << 70, "sha256": "0" * 64, "chunks": [[0, 1 << 60]]}]},
        {"files": [{"path": f"{n}", "size": 1 << 70, "sha256": "0" * 64, "chunks": [[0, 1 << 20]]} for n in range(9)]},
        {"files": [{"path": "a", "size": 0, "sha256": "0" * 64, "executable": "yes"}]},
        {"chunks": [["0" * 64, 1, 0]]},
        {"chunks": [["0" * 64, 1]]},
        {"files": [{"path": "a", "size": 3, "sha256": "0" * 64, "chunks": [0]}]},
        {"files": [{"path": "a", "size": 3, "sha256": "0" * 64, "chunks": ["1"]}]},
        {"chunks": [["0" * 64, 1, 0, 1.5]]},
        {"packs": [["0" * 64, "1"]]},
        {"links": [["a"]]},
        {"meta": {"a": 1}},
    ],
)
def test_a_malformed_manifest_is_refused_with_a_reason(damage: dict[str, object]) -> None:
    document = json.loads(make_manifest().to_json()) | damage
    with pytest.raises(ValueError, match=r"."):
        Manifest.from_json(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"3", b"[" * 100_000, b"\xff"])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Manifest.from_json(data)
