"""What a stolen owner's key, a malicious mirror or a local user could put in front of a device's content floor.

The manifests here are signed as far as the code under test can tell: the metadata's tests are elsewhere.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from instar.content._zstd import zstd
from instar.content.downloads import Downloads
from instar.content.packs import compress_frame
from instar.content.rebuild import Source, make_tree, take_inventory
from instar.errors import InstarError, Untrusted
from instar.model.digest import Digest
from instar.model.manifest import Base, Chunk, Codec, File, Frame, Link, Manifest, Pack, Patch
from instar.model.names import Name, ProductName, TreePath
from instar.model.version import Version
from instar.policy.route import plan_route
from instar.storage.memory import MemoryStorage

CONTENT = b"what the owner released" * 100
OLD = b"what was there before" * 200


class Hostile:
    """A release of one file, of which every part can be replaced before it is stored."""

    def __init__(self) -> None:
        self.storage = MemoryStorage()
        self.frame = compress_frame(CONTENT, 3)
        self.size = len(CONTENT)
        self.patch: bytes | None = None
        self.base = (Base(Digest.of(OLD), 0, len(OLD)),)
        self.codec = Codec.ZSTD_PREFIX

    def manifest(self) -> Manifest:
        data = self.frame + (self.patch or b"")
        pack = Pack(Digest.of(data), len(data))
        self.storage.write(pack.key, data)
        patches = ()
        if self.patch is not None:
            where = (0, len(self.frame), len(self.patch))
            patches = (Patch(0, len(CONTENT), self.base, self.codec, *where, digest=Digest.of(self.patch)),)
        return Manifest(
            product=ProductName("app"),
            version=Version("1"),
            platform=Name("linux-x86_64"),
            files=(File(TreePath("app"), len(CONTENT), Digest.of(CONTENT), True, (0,), patches),),
            chunks=(Chunk(Digest.of(CONTENT), len(CONTENT), 0, 0),),
            frames=(Frame(0, 0, len(self.frame), self.size, Digest.of(self.frame)),),
            packs=(pack,),
        )

    def install(self, folder: Path, *sources: Source) -> Path:
        made = folder / "made"
        make_tree(self.manifest(), sources, Downloads(folder / "downloads"), made, reader=self.storage)
        return made / "app"


def with_old_file(folder: Path) -> Source:
    (folder / "old").mkdir()
    (folder / "old" / "app").write_bytes(OLD)
    file = File(TreePath("app"), len(OLD), Digest.of(OLD), True, (0,))
    chunk = Chunk(Digest.of(OLD), len(OLD), 0, 0)
    frame = Frame(0, 0, 10, len(OLD), Digest.of(b""))
    manifest = Manifest(
        ProductName("app"),
        Version("0"),
        Name("linux-x86_64"),
        (file,),
        chunks=(chunk,),
        frames=(frame,),
        packs=(Pack(Digest.of(b""), 10),),
    )
    return Source(folder / "old", manifest)


def test_the_release_that_is_spoiled_below_installs_unspoiled(tmp_path: Path) -> None:
    assert Hostile().install(tmp_path).read_bytes() == CONTENT


def endless_frame(size: int) -> bytes:
    """A frame of some kilobytes that makes ``size`` bytes and promises as many as a file has."""
    compressor = zstd.ZstdCompressor(level=1)
    block = bytes(1 << 20)
    return b"".join([*(compressor.compress(block) for _ in range(size >> 20)), compressor.flush()])


FRAMES: dict[str, Callable[[], bytes]] = {
    "a bomb that does not say its size": lambda: endless_frame(1 << 30),
    "a bomb that says its size": lambda: compress_frame(bytes(64 << 20), 1),
    "the right content and a bomb behind it": lambda: compress_frame(CONTENT, 3) + endless_frame(1 << 28),
    "a byte too many": lambda: compress_frame(CONTENT + b"!", 3),
    "a byte too few": lambda: compress_frame(CONTENT[:-1], 3),
    "other content of the same size": lambda: compress_frame(bytes(len(CONTENT)), 3),
    "no frame": lambda: b"MZ" * 50,
    "a frame cut short": lambda: compress_frame(CONTENT, 3)[:-3],
    "a frame that needs a window of 2 GiB": lambda: b"\x28\xb5\x2f\xfd\x00\xa8" + bytes(20),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_hostile_frame_is_refused_and_makes_no_file(tmp_path: Path, name: str) -> None:
    hostile = Hostile()
    hostile.frame = FRAMES[name]()
    with pytest.raises(Untrusted):
        hostile.install(tmp_path)
    made = tmp_path / "made" / "app"
    assert not made.exists() or made.read_bytes() != CONTENT
    assert not made.exists() or made.stat().st_size <= 2 * len(CONTENT)


PATCHES: dict[str, Callable[[], tuple[Codec, bytes]]] = {
    "a prefix patch that is a bomb": lambda: (Codec.ZSTD_PREFIX, endless_frame(1 << 30)),
    "a prefix patch that makes other content": lambda: (Codec.ZSTD_PREFIX, compress_frame(bytes(len(CONTENT)), 3)),
    "a prefix patch that makes too little": lambda: (Codec.ZSTD_PREFIX, compress_frame(CONTENT[1:], 3)),
    "a difference that is a bomb": lambda: (Codec.HDIFF, compress_frame(bytes(64 << 20), 3)),
    "a difference that does not say its size": lambda: (Codec.HDIFF, endless_frame(1 << 20)),
    "a difference that promises a terabyte": lambda: (
        Codec.HDIFF,
        # Sizes of new and old content, seven bits a byte: 2^40, and the base's.
        compress_frame(b"HDIFF13&\x00" + bytes([0xA0, 0x80, 0x80, 0x80, 0x80, 0x00]) + bytes([0xA0, 0xE8 & 0x7F]), 3),
    ),
    "a difference with a huge table": lambda: (
        Codec.HDIFF,
        compress_frame(b"HDIFF13&\x00" + bytes([0x91, 0x7C, 0xA0, 0x68]) + b"\xff\xff\xff\xff\x7f" * 8, 3),
    ),
    "noise": lambda: (Codec.HDIFF, hashlib.sha256(b"").digest()),
}


@pytest.mark.parametrize("name", PATCHES)
def test_a_hostile_patch_is_refused_and_makes_no_file(tmp_path: Path, name: str) -> None:
    hostile = Hostile()
    # The frame has to be dearer than the patch, or it is not even looked at.
    hostile.frame = compress_frame(CONTENT, 3) + compress_frame(hashlib.shake_256(b"").digest(1 << 20), 1)
    hostile.codec, hostile.patch = PATCHES[name]()
    source = with_old_file(tmp_path)
    assert plan_route(hostile.manifest(), take_inventory([source])).steps[0].means.name == "PATCH"
    with pytest.raises(Untrusted):
        hostile.install(tmp_path, source)
    made = tmp_path / "made" / "app"
    assert not made.exists() or made.read_bytes() != CONTENT


def test_a_base_that_reaches_beyond_its_file_is_not_read(tmp_path: Path) -> None:
    hostile = Hostile()
    hostile.frame = compress_frame(CONTENT, 3)
    hostile.patch = b"x"
    hostile.base = (Base(Digest.of(OLD), len(OLD) - 1, 2),)
    # The old file is dropped as a base, and the chunks make the file.
    assert hostile.install(tmp_path, with_old_file(tmp_path)).read_bytes() == CONTENT


def test_a_mirror_that_serves_other_bytes_is_found_out_before_they_are_decompressed(tmp_path: Path) -> None:
    hostile = Hostile()
    manifest = hostile.manifest()
    hostile.storage.write(manifest.packs[0].key, b"\0" * manifest.packs[0].size)
    with pytest.raises(Untrusted, match="not what was signed"):
        make_tree(manifest, [], Downloads(tmp_path / "d"), tmp_path / "made", reader=hostile.storage)
    assert not (tmp_path / "made").exists()


def test_a_mirror_that_serves_a_shorter_pack_is_found_out(tmp_path: Path) -> None:
    hostile = Hostile()
    manifest = hostile.manifest()
    hostile.storage.write(manifest.packs[0].key, hostile.frame[:-1])
    with pytest.raises(InstarError, match="shorter than promised"):
        make_tree(manifest, [], Downloads(tmp_path / "d"), tmp_path / "made", reader=hostile.storage)


@pytest.mark.parametrize(
    "change",
    [
        {"files": (File(TreePath("a"), 5, Digest.of(b""), False, ()),)},
        {"links": (Link(TreePath("app"), "x"),)},
        {"links": (Link(TreePath("l"), "../../etc"),)},
        {"links": (Link(TreePath("l"), "/etc"),)},
        {"links": (Link(TreePath("APP"), "x"),)},
        {"directories": (TreePath("App"),)},
        {"frames": (Frame(0, 0, 1 << 50, 10, Digest.of(b"")),)},
        {"frames": (Frame(0, 0, 10, 1 << 40, Digest.of(b"")),)},
        {"chunks": (Chunk(Digest.of(CONTENT), len(CONTENT), 0, 1 << 40),)},
        {"chunks": (Chunk(Digest.of(CONTENT), len(CONTENT), 9, 0),)},
    ],
)
def test_a_manifest_that_contradicts_itself_or_leaves_the_tree_cannot_be_made(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        replace(Hostile().manifest(), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a//b", "nul", "a\\..\\b", "c:\x00", ".", ""])
def test_a_path_that_leaves_the_tree_cannot_be_made(path: str) -> None:
    with pytest.raises(ValueError, match="cannot be a path"):
        TreePath(path)


def test_files_through_a_link_cannot_be_listed() -> None:
    release = Hostile().manifest()
    through = replace(release.files[0], path=TreePath("dir/app"))
    with pytest.raises(ValueError, match="inside the link"):
        replace(release, files=(through,), links=(Link(TreePath("dir"), "elsewhere"),))


def test_what_somebody_put_into_the_staging_folder_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "made").symlink_to("outside")
    (tmp_path / "outside" / "app").symlink_to(tmp_path / "victim")
    with pytest.raises(InstarError, match="not empty"):
        Hostile().install(tmp_path)
    assert not (tmp_path / "victim").exists()


def test_an_old_file_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    hostile = Hostile()
    source = with_old_file(tmp_path)
    (source.root / "app").unlink()
    (tmp_path / "secret").write_bytes(OLD)
    (source.root / "app").symlink_to(tmp_path / "secret")
    assert hostile.install(tmp_path, source).read_bytes() == CONTENT
