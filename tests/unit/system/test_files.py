import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from instar.system.files import (
    clone_file,
    create_file,
    iterate_blocks,
    make_folder,
    move,
    read_bounded,
    remove_tree,
    sync_folder,
    sync_tree,
    write_atomic,
)


def test_a_bounded_read_gives_all_or_refuses(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(ValueError, match="longer than the 4 bytes"):
        read_bounded(path, 4)


def test_an_atomic_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_atomic_write_that_fails_keeps_the_old_content(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.mkdir()
    with pytest.raises(OSError, match=r"."):
        write_atomic(folder, b"a file cannot replace a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_new_file_follows_no_link_and_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "there").touch()
    for name in ("link", "there"):
        with pytest.raises(FileExistsError):
            create_file(tmp_path / name)
    assert not (tmp_path / "elsewhere").exists()


def test_a_clone_has_the_content_and_is_independent(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"x" * 3_000_000)
    clone_file(source, target, mode=0o755)
    source.write_bytes(b"changed")
    assert target.read_bytes() == b"x" * 3_000_000
    assert target.stat().st_mode & 0o777 == 0o755


def test_a_move_replaces_a_file_across_folders(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "dir/b").write_bytes(b"old")
    move(tmp_path / "a", tmp_path / "dir/b")
    assert (tmp_path / "dir/b").read_bytes() == b"new"
    assert not (tmp_path / "a").exists()


def test_removing_a_tree_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    tree = tmp_path / "tree"
    (tree / "deep/er").mkdir(parents=True)
    (tree / "deep/er/file").touch(mode=0o400)
    (tree / "link").symlink_to(outside)
    (tree / "deep/er").chmod(0o500)
    remove_tree(tree)
    assert not tree.exists()
    assert (outside / "kept").exists()


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """Give a folder of somebody who is not root, whom modes bind, and be that somebody for the length of a test."""
    if sys.platform == "win32" or os.geteuid() != 0:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
        return
    folder = Path(tempfile.mkdtemp())
    os.chown(folder, 65534, 65534)
    os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(0)
        remove_tree(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
@pytest.mark.parametrize("mode", [0, 0o100, 0o300, 0o400, 0o500])
def test_a_tree_is_removed_whatever_its_folders_allow(own_folder: Path, mode: int) -> None:
    tree = own_folder / "tree"
    (tree / "deep/er/est").mkdir(parents=True)
    for folder in (tree / "deep/er/est", tree / "deep/er", tree / "deep", tree):
        (folder / "file").touch(mode=0o400)
        (folder / "dangling").symlink_to("nowhere")
        folder.chmod(mode)
    remove_tree(tree)
    assert list(own_folder.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
def test_removing_a_tree_changes_no_mode_outside_of_it(own_folder: Path) -> None:
    outside, tree = own_folder / "outside", own_folder / "tree"
    outside.touch(mode=0o444)
    tree.mkdir()
    (tree / "link").symlink_to(outside)
    tree.chmod(0o500)
    own_folder.chmod(0o555)
    with pytest.raises(PermissionError):
        remove_tree(tree)
    assert own_folder.stat().st_mode & 0o777 == 0o555
    assert outside.stat().st_mode & 0o777 == 0o444
    own_folder.chmod(0o700)


def test_removing_a_link_or_file_or_nothing_is_fine(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    remove_tree(tmp_path / "link")
    remove_tree(tmp_path / "nothing")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at a file system of Linux' own")
def test_a_file_system_that_cannot_sync_folders_is_no_failure() -> None:
    sync_folder(Path("/proc/self"))


def test_syncing_a_tree_takes_links_and_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").touch(mode=0o400)
    sync_tree(tmp_path)


def test_blocks_add_up(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(2_500_000))
    with path.open("rb") as file:
        assert b"".join(iterate_blocks(file)) == path.read_bytes()


def test_a_folder_is_made_with_those_above_it_and_may_exist(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps the folder that a process is in")
def test_no_folder_is_made_where_there_is_nothing_to_make_it_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(FileNotFoundError):
        make_folder(Path("a/b"))


def test_a_file_where_a_folder_should_be_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(OSError, match="a"):
        make_folder(tmp_path / "a" / "b")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"x"
