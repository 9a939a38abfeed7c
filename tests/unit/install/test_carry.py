"""Carrying the user's files: what the patterns name, copied, wherever the new tree has room for it."""

import os
from pathlib import Path

import pytest

from instar.errors import InstallFailed
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
