import os
import socket
from pathlib import Path

import pytest

from instar.content.scan import scan_folder
from instar.content.trees import Difference, Problem, verify_tree
from instar.errors import Cancelled, Misconfigured
from instar.model.digest import Digest
from instar.model.manifest import Link, Manifest
from instar.model.names import Name, TreePath
from instar.model.progress import Phase, Progress
from tests.support.releases_on_disk import Shelf, write_tree

LINUX, WINDOWS = Name("linux-x86_64"), Name("windows-amd64")
FILES = {"bin/app*": b"program", "lib/a.txt": b"aaa", "lib/empty": b"", "void/inner": None, "bin/link": "../lib/a.txt"}


def test_a_folder_is_read_as_values(tmp_path: Path) -> None:
    seen: list[Progress] = []
    tree = scan_folder(write_tree(tmp_path, FILES), platform=LINUX, progress=seen.append)
    assert [(str(f.path), f.size, f.executable) for f in tree.files] == [
        ("bin/app", 7, True),
        ("lib/a.txt", 3, False),
        ("lib/empty", 0, False),
    ]
    assert tree.files[1].digest == Digest.of(b"aaa")
    assert [(str(link.path), link.target) for link in tree.links] == [("bin/link", "../lib/a.txt")]
    assert [str(d) for d in tree.directories] == ["void/inner"]
    assert (seen[-1].phase, seen[-1].done, seen[-1].total) == (Phase.SCAN, 10, 10)


def test_a_link_is_kept_even_when_its_target_has_detours(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "l").symlink_to(".//a")
    assert scan_folder(tmp_path, platform=LINUX).links == (Link(TreePath("l"), "a"),)


@pytest.mark.parametrize(
    ("files", "platform", "problem"),
    [
        ({"a": b"a", "out": "../../etc/passwd"}, LINUX, "not inside the release"),
        ({"a": b"a", "abs": "/etc/passwd"}, LINUX, "not inside the release"),
        ({"a/B": b"1", "a/b": b"2"}, LINUX, "case-insensitive"),
        ({"aux.txt": b"1"}, LINUX, "device's name on Windows"),
        ({"back\\slash": b"1"}, LINUX, "backslash"),
        ({"what?": b"1"}, WINDOWS, "Windows takes no"),
        ({"a": b"1", "l": "a"}, WINDOWS, "symbolic links"),
        ({}, LINUX, "no files"),
        ({"only/empty": None}, LINUX, "no files"),
    ],
)
def test_what_no_release_can_hold_is_refused(
    tmp_path: Path,
    files: dict[str, bytes | str | None],
    platform: Name,
    problem: str,
) -> None:
    with pytest.raises(Misconfigured, match=problem):
        scan_folder(write_tree(tmp_path, files), platform=platform)


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "gone", tmp_path / "file"):
        with pytest.raises(Misconfigured, match="no folder"):
            scan_folder(path, platform=LINUX)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": b"a"})
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        previous = Path.cwd()
        os.chdir(tmp_path)
        try:
            listener.bind("socket")  # the full path may be longer than a socket's address can be
        finally:
            os.chdir(previous)
        with pytest.raises(Misconfigured, match=r"pipe is neither.*; socket is neither"):
            scan_folder(tmp_path, platform=LINUX)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xff\xfe", "wb"):  # noqa: PTH123  # a Path holds text only
        pass
    with pytest.raises(Misconfigured, match="not Unicode"):
        scan_folder(tmp_path, platform=LINUX)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": b"a", "secret": b"s"})
    (tmp_path / "secret").chmod(0)
    with pytest.raises(Misconfigured, match="secret: Permission denied"):
        scan_folder(tmp_path, platform=LINUX)


def released(tmp_path: Path) -> tuple[Path, Manifest]:
    shelf = Shelf(tmp_path)
    manifest = shelf.add("1", FILES).manifest
    return shelf.tree("1"), manifest


def test_a_tree_as_released_has_no_problems(tmp_path: Path) -> None:
    root, manifest = released(tmp_path)
    seen: list[Progress] = []
    assert verify_tree(root, manifest, progress=seen.append) == []
    assert (seen[-1].phase, seen[-1].done, seen[-1].total) == (Phase.VERIFY, 10, 10)


def test_every_kind_of_difference_is_found(tmp_path: Path) -> None:
    root, manifest = released(tmp_path)
    (root / "bin/app").chmod(0o644)
    (root / "lib/a.txt").write_bytes(b"aab")
    (root / "lib/empty").unlink()
    (root / "bin/link").unlink()
    (root / "bin/link").symlink_to("../lib/empty")
    (root / "void/inner").rmdir()
    write_tree(root, {"lib/new/file": b"x", "lib/kept": b"y", "lib/link": "a.txt"})
    assert verify_tree(root, manifest, keep=lambda path: path == "lib/kept") == [
        Problem("bin/app", Difference.CHANGED),
        Problem("bin/link", Difference.CHANGED),
        Problem("lib/a.txt", Difference.CHANGED),
        Problem("lib/empty", Difference.MISSING),
        Problem("lib/link", Difference.EXTRA),
        Problem("lib/new/file", Difference.EXTRA),
        Problem("void/inner", Difference.MISSING),
    ]


def test_another_kind_of_entry_in_a_files_place_is_a_change(tmp_path: Path) -> None:
    root, manifest = released(tmp_path)
    (root / "lib/a.txt").unlink()
    (root / "lib/a.txt").symlink_to("empty")
    (root / "lib/empty").unlink()
    (root / "lib/empty").mkdir()
    (root / "bin/link").unlink()
    (root / "bin/link").write_bytes(b"aaa")
    problems = {problem.path: problem.difference for problem in verify_tree(root, manifest)}
    assert problems == dict.fromkeys(["lib/a.txt", "lib/empty", "bin/link"], Difference.CHANGED)


def test_a_tree_that_is_gone_misses_everything(tmp_path: Path) -> None:
    _, manifest = released(tmp_path)
    problems = verify_tree(tmp_path / "nowhere", manifest)
    assert {problem.difference for problem in problems} == {Difference.MISSING}
    assert {"bin", "bin/app", "bin/link", "void/inner"} <= {problem.path for problem in problems}


def test_verifying_can_be_cancelled(tmp_path: Path) -> None:
    root, manifest = released(tmp_path)
    with pytest.raises(Cancelled):
        verify_tree(root, manifest, cancelled=lambda: True)
