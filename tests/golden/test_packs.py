"""Packs are files that the standard tool reads, with no code of ours."""

import shutil
import subprocess
from pathlib import Path

import pytest

from instar.content.build import Built
from tests.support.releases_on_disk import Shelf, edited, some_text

zstd = shutil.which("zstd")
pytestmark = pytest.mark.skipif(zstd is None, reason="the zstd program is not installed")

OLD = {"a": some_text("a", 100_000), "b": some_text("b", 300_000)}
NEW = OLD | {"b": edited(OLD["b"], (1000, b"changed")), "c": some_text("c", 5000)}


def decompressed(path: Path) -> bytes:
    assert zstd is not None
    return subprocess.run([zstd, "-d", "-c", "-q", path], check=True, capture_output=True).stdout


def packs(built: Built) -> list[Path]:
    return [file.path for file in built.files]


def test_zstd_prints_the_contents_of_a_pack_one_after_the_other(tmp_path: Path) -> None:
    built = Shelf(tmp_path).add("1", dict(OLD))
    (pack,) = packs(built)
    assert decompressed(pack) == OLD["a"] + OLD["b"]


def test_zstd_passes_over_the_patches_of_a_patch_pack(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.add("1", dict(OLD))
    chunks, patches = packs(shelf.add("2", dict(NEW)))
    assert decompressed(chunks).startswith(NEW["c"])
    assert decompressed(patches) == b""
    both = tmp_path / "both.zst"
    both.write_bytes(patches.read_bytes() + chunks.read_bytes())
    assert decompressed(both) == decompressed(chunks)


def test_a_pack_is_named_by_its_content_as_sha256sum_prints_it(tmp_path: Path) -> None:
    (pack,) = packs(Shelf(tmp_path).add("1", dict(OLD)))
    output = subprocess.run(["sha256sum", pack], check=True, capture_output=True, text=True).stdout
    assert pack.name == output.split()[0] + ".pack"
