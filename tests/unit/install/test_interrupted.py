"""Steps that were interrupted or refused in the middle: gone on with, or undone, and never half of each."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from instar.errors import InstallFailed
from instar.install import Installation, Layout, Phase, StartReason
from instar.install.appdir.linux import Linux
from instar.system import files
from instar.testing.crash import KILL, run
from instar.testing.installs import begin, read_app, release_of, stage_app


def no_exchange(first: bytes, second: bytes) -> int:
    return errno.ENOSYS


class Refusing(Linux):
    """Linux without exchange, whose renames are refused when ``refuses`` says so."""

    def __init__(self, refuses: Callable[[Path, Path], bool]) -> None:
        super().__init__(no_exchange)
        self.refuses = refuses

    def move(self, source: Path, target: Path) -> None:
        if self.refuses(source, target):
            raise OSError(errno.EIO, "refused", str(source))
        super().move(source, target)


def kill_after_journal(place: Path, work: Callable[[], object]) -> None:
    """Kill ``work`` at the first step after its journal is on the disk."""
    for at in range(1, 200):
        ended = run(work, below=place, fault=KILL, at=at)
        if len(ended.steps) > 1 and ended.steps[-2].endswith("journal.json"):
            return
    pytest.fail("no journal was written")


@pytest.mark.parametrize("layout", Layout)
def test_what_the_user_wrote_since_the_interruption_comes_along(tmp_path: Path, layout: Layout) -> None:
    app = begin(tmp_path / "app", layout=layout)
    stage_app(app, "2.0")
    kill_after_journal(tmp_path, lambda: Installation.open(app.location).switch(environment={}))
    assert app.status().unfinished
    assert read_app(app.entry) == "1.0"
    (app.entry / "data" / "late").write_text("after the interruption")
    assert app.started(environment={}).reason is StartReason.FINISHED
    assert read_app(app.entry) == "2.0"
    assert (app.entry / "data" / "late").exists()


def test_a_switch_that_was_refused_is_not_done_later_behind_ones_back(tmp_path: Path) -> None:
    app = begin(tmp_path / "app", layout=Layout.IN_PLACE, platform=Linux(lambda _, __: errno.ENOSPC))
    stage_app(app, "2.0")
    with pytest.raises(InstallFailed, match="disk is full"):
        app.switch(environment={})
    assert not app.status().unfinished
    assert app.started(environment={}).reason is StartReason.NOTHING
    assert read_app(app.entry) == "1.0"
    assert app.status().staged == release_of("2.0")


def test_a_second_rename_that_is_refused_takes_the_first_one_back(tmp_path: Path) -> None:
    location = tmp_path / "app"
    platform = Refusing(lambda _, __: False)
    app = begin(location, layout=Layout.IN_PLACE, platform=platform)
    stage_app(app, "2.0")
    platform.refuses = lambda source, target: target == location and source.name.startswith("2.0")
    with pytest.raises(InstallFailed) as caught:
        app.switch(environment={})
    assert caught.value.running == "1.0"
    assert read_app(location) == "1.0"
    assert not app.status().unfinished
    platform.refuses = lambda _, __: False
    app.switch(environment={})
    assert read_app(location) == "2.0"


def test_an_interrupted_switch_whose_tree_is_gone_is_undone(tmp_path: Path) -> None:
    location = tmp_path / "app"
    platform = Refusing(lambda _, __: False)
    app = begin(location, layout=Layout.IN_PLACE, platform=platform)
    stage_app(app, "2.0")
    platform.refuses = lambda _, target: target == location
    # Neither forward nor back: the app is away, and the journal stays.
    with pytest.raises(InstallFailed):
        app.switch(environment={})
    assert read_app(location) is None
    assert app.status().unfinished
    platform.refuses = lambda _, __: False
    files.remove_tree(next((app.state_folder / "trees").glob("2.0-*")))
    app.recover()
    assert read_app(location) == "1.0"
    assert app.status().phase is Phase.STEADY
    assert app.status().current == release_of("1.0")
