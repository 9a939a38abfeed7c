"""Carrying the user's files: what the patterns name, copied, wherever the new tree has room for it."""

import os
import stat
from pathlib import Path

import pytest

from instar.errors import InstallFailed
from instar.install import Layout
from instar.install.carry import carry_over
from instar.model.keep import Keep
from instar.testing.installs import begin, read_app, stage_app


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path, Path]:
    made = (tmp_path / "old", tmp_path / "new", tmp_path / "scratch")
    for folder in made:
        folder.mkdir()
    return made


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_only_what_is_named_is_carried_with_its_time_and_permissions(trees: tuple[Path, Path, Path]) -> None:
    old, new, scratch = trees
    write(old / "data" / "deep" / "mine", "mine")
    (old / "data" / "empty").mkdir()
    (old / "data" / "deep" / "mine").chmod(0o640)
    os.utime(old / "data" / "deep" / "mine", ns=(5, 1_700_000_000_123_456_789))
    write(old / "stale", "stale")
    write(old / "a.log", "log")
    carry_over(Keep(("data", "*.log")), old, new, scratch)
    found = {str(path.relative_to(new)) for path in new.rglob("*")}
    assert found == {"data", "data/deep", "data/deep/mine", "data/empty", "a.log"}
    status = (new / "data" / "deep" / "mine").stat()
    assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o640, 1_700_000_000_123_456_789)
    assert list(scratch.iterdir()) == []
    assert (old / "data" / "deep" / "mine").read_text() == "mine"


def test_a_private_folder_of_the_users_stays_private_and_a_shared_one_shared(trees: tuple[Path, Path, Path]) -> None:
    old, new, scratch = trees
    write(old / "data" / "private" / "mine", "mine")
    write(old / "shared" / "mine", "mine")
    (new / "shared").mkdir(mode=0o755)  # the release brings it
    (old / "data" / "private").chmod(0o700)
    (old / "data").chmod(0o750)
    (old / "shared").chmod(0o1777)
    carry_over(Keep(("data", "shared/*")), old, new, scratch)
    modes = {name: stat.S_IMODE((new / name).stat().st_mode) for name in ("data", "data/private", "shared")}
    assert modes == {"data": 0o750, "data/private": 0o700, "shared": 0o1777}


def test_a_folder_of_the_users_that_refuses_changes_is_no_obstacle(trees: tuple[Path, Path, Path]) -> None:
    old, new, scratch = trees
    write(old / "data" / "mine", "mine")
    (old / "data").chmod(0o500)
    for _ in range(2):
        carry_over(Keep(("data",)), old, new, scratch)
    assert stat.S_IMODE((new / "data").stat().st_mode) == 0o700
    (old / "data").chmod(0o700)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only the superuser can give files away")
def test_what_belongs_to_a_user_still_does_when_the_superuser_updates(trees: tuple[Path, Path, Path]) -> None:
    old, new, scratch = trees
    write(old / "data" / "mine", "mine")
    (old / "data" / "link").symlink_to("mine")
    (old / "data" / "mine").chmod(0o600)
    for name in ("data", "data/mine", "data/link"):
        os.chown(old / name, 1234, 4321, follow_symlinks=False)
    carry_over(Keep(("data",)), old, new, scratch)
    for name in ("data", "data/mine", "data/link"):
        status = (new / name).lstat()
        assert (status.st_uid, status.st_gid) == (1234, 4321), name
    assert stat.S_IMODE((new / "data" / "mine").stat().st_mode) == 0o600


def test_the_users_file_wins_over_the_releases(trees: tuple[Path, Path, Path]) -> None:
    old, new, scratch = trees
    write(old / "settings.ini", "mine")
    write(new / "settings.ini", "default")
    carry_over(Keep(("settings.ini",)), old, new, scratch)
    assert (new / "settings.ini").read_text() == "mine"


def test_a_link_of_the_users_is_carried_as_a_link(trees: tuple[Path, Path, Path], tmp_path: Path) -> None:
    old, new, scratch = trees
    write(tmp_path / "elsewhere" / "secret", "secret")
    (old / "data").mkdir()
    (old / "data" / "link").symlink_to(tmp_path / "elsewhere")
    carry_over(Keep(("data",)), old, new, scratch)
    assert (new / "data" / "link").is_symlink()
    assert not (new / "data" / "link" / "secret").is_symlink()


@pytest.mark.skipif(os.name == "nt", reason="Windows takes no such names")
def test_names_that_no_release_could_have_are_carried_too(trees: tuple[Path, Path, Path]) -> None:
    old, new, scratch = trees
    name = os.fsdecode(b"con\\\xff\n")
    write(old / "data" / name / "mine", "mine")
    carry_over(Keep(("data",)), old, new, scratch)
    assert (new / "data" / name / "mine").read_text() == "mine"


def test_what_is_no_file_is_left_out(trees: tuple[Path, Path, Path]) -> None:
    old, new, scratch = trees
    (old / "data").mkdir()
    os.mkfifo(old / "data" / "pipe")
    carry_over(Keep(("data",)), old, new, scratch)
    assert list((new / "data").iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "link"])
def test_nothing_is_written_through_what_the_release_has_in_the_place_of_a_folder(
    trees: tuple[Path, Path, Path], tmp_path: Path, kind: str
) -> None:
    old, new, scratch = trees
    write(old / "data" / "mine", "mine")
    outside = tmp_path / "outside"
    outside.mkdir()
    if kind == "file":
        write(new / "data", "a file")
    else:
        (new / "data").symlink_to(outside)
    with pytest.raises(NotADirectoryError):
        carry_over(Keep(("data",)), old, new, scratch)
    assert list(outside.iterdir()) == []


def test_a_folder_of_the_release_is_not_replaced_by_a_file(trees: tuple[Path, Path, Path]) -> None:
    old, new, scratch = trees
    write(old / "notes", "mine")
    (new / "notes").mkdir()
    with pytest.raises(IsADirectoryError):
        carry_over(Keep(("notes",)), old, new, scratch)


def test_carrying_again_brings_what_changed(trees: tuple[Path, Path, Path]) -> None:
    old, new, scratch = trees
    write(old / "data" / "mine", "early")
    carry_over(Keep(("data",)), old, new, scratch)
    write(old / "data" / "mine", "late")
    carry_over(Keep(("data",)), old, new, scratch)
    assert (new / "data" / "mine").read_text() == "late"


def test_a_release_that_has_no_room_for_the_users_files_is_not_selected(tmp_path: Path) -> None:
    app = begin(tmp_path / "app", keep=("data/*", "only-in-2.0"))
    (app.entry / "only-in-2.0").mkdir()
    (app.entry / "only-in-2.0" / "mine").write_text("mine")
    stage_app(app, "2.0")
    with pytest.raises(InstallFailed, match="file or link where the user has a folder"):
        app.switch(environment={})
    (app.entry / "only-in-2.0" / "mine").unlink()
    (app.entry / "only-in-2.0").rmdir()
    assert read_app(app.entry) == "1.0"


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps no such permissions")
def test_an_app_in_its_own_folder_stays_as_private_as_it_was(tmp_path: Path) -> None:
    app = begin(tmp_path / "app", layout=Layout.IN_PLACE, keep=())
    app.location.chmod(0o700)
    stage_app(app, "2.0")
    app.switch(environment={})
    assert read_app(app.location) == "2.0"
    assert stat.S_IMODE(app.location.stat().st_mode) == 0o700
