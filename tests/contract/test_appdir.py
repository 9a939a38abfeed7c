"""What every platform promises, whatever it is made of."""

import os
import sys
from pathlib import Path

import pytest

from instar.install.appdir.native import native_platform
from instar.install.appdir.port import Platform
from instar.testing.installs import PLATFORMS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="borrows Linux's calls for all platforms")


@pytest.fixture(params=[*PLATFORMS, "native"])
def platform(request: pytest.FixtureRequest) -> Platform:
    return native_platform() if request.param == "native" else PLATFORMS[request.param]()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    return first, second


def test_a_link_leads_where_it_was_pointed_last(platform: Platform, folders: tuple[Path, Path], tmp_path: Path) -> None:
    link = tmp_path / "link"
    for folder in (*folders, *folders, folders[1]):
        platform.point(link, folder)
        assert platform.pointed(link) == folder
        assert (link / "name").read_text() == folder.name
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second", "link"}


def test_nothing_is_pointed_to_where_there_is_no_link(platform: Platform, folders: tuple[Path, Path]) -> None:
    assert platform.pointed(folders[0] / "missing") is None
    assert platform.pointed(folders[0]) is None
    assert platform.pointed(folders[0] / "name") is None
    assert platform.pointed(folders[0] / "name" / "below") is None


def test_a_link_tells_where_it_leads_though_nothing_is_there(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    platform.point(tmp_path / "link", tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert platform.pointed(tmp_path / "link") == tmp_path / "gone"


def test_what_a_killed_process_left_beside_a_link_is_no_obstacle(
    platform: Platform, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    link = tmp_path / "link"
    platform.point(link, folders[0])
    (tmp_path / ".link.new").symlink_to(folders[0])
    platform.point(link, folders[1])
    assert platform.pointed(link) == folders[1]
    assert not os.path.lexists(tmp_path / ".link.new")


def test_unpointing_removes_the_link_alone_and_may_be_repeated(
    platform: Platform, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    link = tmp_path / "link"
    platform.point(link, folders[0])
    platform.unpoint(link)
    platform.unpoint(link)
    assert not os.path.lexists(link)
    assert (folders[0] / "name").read_text() == "first"


def test_an_exchange_is_done_wholly_or_not_at_all(platform: Platform, folders: tuple[Path, Path]) -> None:
    before = [folder.stat().st_ino for folder in folders]
    done = platform.exchange(*folders)
    after = [folder.stat().st_ino for folder in folders]
    assert after == (before[::-1] if done else before)
    assert (folders[0] / "name").read_text() == ("second" if done else "first")


def test_a_folder_that_is_moved_keeps_its_number(
    platform: Platform, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    number = folders[0].stat().st_ino
    platform.move(folders[0], tmp_path / "moved")
    assert (tmp_path / "moved").stat().st_ino == number


def test_a_move_never_replaces_a_folder_but_replaces_a_file(
    platform: Platform, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for target in (folders[1], tmp_path / "empty"):
        with pytest.raises(OSError, match=r"[Ee]xists|used"):
            platform.move(folders[0], target)
    platform.move(folders[0] / "name", folders[1] / "name")
    assert (folders[1] / "name").read_text() == "first"


def test_removing_a_tree_does_not_follow_links_and_may_be_repeated(
    platform: Platform, folders: tuple[Path, Path]
) -> None:
    platform.point(folders[0] / "link", folders[1])
    platform.remove_tree(folders[0])
    platform.remove_tree(folders[0])
    assert not folders[0].exists()
    assert (folders[1] / "name").exists()


def test_a_command_names_a_program_in_the_tree(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "app").touch()
    assert platform.command(["bin/app", "--version"], tmp_path) == [str(tmp_path / "bin" / "app"), "--version"]


def test_this_process_runs(platform: Platform) -> None:
    if not platform.has_helper:
        assert platform.is_running(os.getpid())
        assert not platform.is_running(2**22 - 3)
