"""Killed, or refused by the disk, at every step of what an installation does, in both layouts on every platform.

Afterwards the app is the old or the new one, whole; where a platform has no single step for a switch, the app may be
missing, and is there again after the next operation. The next run succeeds, and nothing is left over.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from instar.errors import InstallFailed, InstarError, Misconfigured
from instar.install import Installation, Layout, Phase
from instar.system import files
from instar.testing.crash import DISK_FULL, KILL, READ_ONLY, Ended, Fail, Fault, every_step
from instar.testing.installs import PLATFORMS, begin, make_record, read_app, release_of, stage_app, write_app

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork, and borrows Linux's calls")


@dataclass(frozen=True)
class Case:
    """An operation: what is there before, what is done, and what the app may be at any moment and is at the end."""

    prepare: Callable[[Installation], object]
    work: Callable[[Installation], object]
    versions: frozenset[str]
    after: str


def switch(app: Installation) -> None:
    if app.status().staged is not None:
        app.switch(environment={})


def stage(app: Installation) -> None:
    if app.status().staged is None:
        stage_app(app, "2.0")


def to_two(app: Installation) -> None:
    stage_app(app, "2.0")
    app.switch(environment={})


def pending_over_older(app: Installation) -> None:
    to_two(app)
    app.confirm()
    stage_app(app, "3.0")
    app.switch(environment={})


def started_out(app: Installation) -> None:
    to_two(app)
    for _ in range(3):
        app.started(environment={})


def waiting(app: Installation) -> None:
    stage_app(app, "2.0")
    app.switch_at_start()


def roll_back(app: Installation) -> None:
    status = app.status()
    if status.current == release_of("2.0") or status.unfinished:
        app.recover()
        if app.status().previous is not None:
            app.rollback()


def start(app: Installation) -> None:
    problem = app.started(environment={}).problem
    # Nothing keeps an app from starting; what could not be done is told, and is a failed operation here.
    if problem is not None and "could not" in problem:
        raise InstallFailed(problem)


CASES = {
    "stage": Case(Installation.recover, stage, frozenset({"1.0"}), "1.0"),
    "switch": Case(lambda app: stage_app(app, "2.0"), switch, frozenset({"1.0", "2.0"}), "2.0"),
    "confirm": Case(pending_over_older, Installation.confirm, frozenset({"3.0"}), "3.0"),
    "rollback": Case(to_two, roll_back, frozenset({"1.0", "2.0"}), "1.0"),
    "rollback at start": Case(started_out, start, frozenset({"1.0", "2.0"}), "1.0"),
    "switch at start": Case(waiting, start, frozenset({"1.0", "2.0"}), "2.0"),
}
# The last files of an installation to go.
REMAINS = {f"{folder}/{name}" for folder in ("app/.instar", ".app.instar") for name in ("journal.json", "lock")}
# Every platform where it differs in the layout; the folders of both layouts are the same on Linux and macOS.
PLACES = [
    (Layout.VERSIONED, "linux"),
    (Layout.VERSIONED, "windows"),
    (Layout.IN_PLACE, "linux"),
    (Layout.IN_PLACE, "linux without exchange"),
    (Layout.IN_PLACE, "windows"),
]
IDS = {KILL: "killed", DISK_FULL: "disk full", READ_ONLY: "read-only"}
# A disk refuses alike on every platform; a kill leaves what each platform's own steps left.
TRIALS = [
    pytest.param(*place, fault, id=f"{place[0]} {place[1]} {name}")
    for place in PLACES
    for fault, name in IDS.items()
    if fault is KILL or (place[1] == "linux" and (fault is DISK_FULL or place[0] is Layout.VERSIONED))
]
# Where one step does it, the app is there at every moment.
ATOMIC = {(Layout.VERSIONED, "linux"), (Layout.IN_PLACE, "linux")}


@pytest.fixture
def fast_folder() -> Iterator[Path]:
    # In memory where the machine has it: every attempt syncs a lot.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def check_told(ended: Ended, fault: Fault) -> None:
    if isinstance(fault, Fail):
        # The builder of the tree is the test itself here, and tells of its own errors as it likes.
        by_test = "staging/tree-" in (ended.error or "") and "write_app" in ended.trace
        assert ended.finished or "InstallFailed" in ended.families or by_test, ended.trace
    else:
        assert ended.killed, ended.trace


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("layout", "system", "fault"), TRIALS)
def test_the_app_is_old_or_new_and_the_next_run_succeeds(
    layout: Layout, system: str, name: str, fault: Fault, fast_folder: Path
) -> None:
    case = CASES[name]

    def attempt(at: int) -> tuple[Path, Callable[[], object]]:
        app = begin(fast_folder / str(at) / "app", layout=layout, platform=PLATFORMS[system]())
        case.prepare(app)
        return fast_folder / str(at), lambda: case.work(Installation.open(app.location, platform=PLATFORMS[system]()))

    steps = 0
    for at, folder, ended in every_step(attempt, fault=fault):
        steps += 1
        where = f"step {at}: {ended.steps[-1]} {ended.error}"
        check_told(ended, fault)
        entry = folder / "app" / "current" if layout is Layout.VERSIONED else folder / "app"
        missing_allowed = (layout, system) not in ATOMIC
        running = read_app(entry)
        assert running in case.versions or (running is None and missing_allowed), where

        app = Installation.open(folder / "app", platform=PLATFORMS[system]())
        told = app.status().current
        assert told is not None
        assert running is None or str(told.version) == running, where
        app.recover()
        assert read_app(entry) in case.versions, where
        assert not app.status().unfinished
        case.work(app)
        assert read_app(entry) == case.after, where
        assert [str(failure.version) for failure in app.status().failed] == (["2.0"] if "rollback" in name else []), (
            where
        )
        check_orderly(app, where)
        files.remove_tree(folder)
    assert steps >= 5


def check_orderly(app: Installation, where: str) -> None:
    assert (app.entry / "settings.ini").read_text() == "mine\n", where
    assert (app.entry / "data" / "notes").read_text() == "my notes\n", where
    # The next start removes what the interrupted one left.
    app.started(environment={})
    app.recover()
    trees = app.state_folder / "trees" if app.entry == app.location else app.location / "versions"
    status = app.status()
    wanted = [release for release in (status.current, status.previous, status.staged) if release]
    if app.entry == app.location:
        wanted = wanted[1:]
    assert sorted(path.name.split("-")[0] for path in trees.iterdir()) == sorted(str(r.version) for r in wanted), where
    assert list((app.state_folder / "staging").iterdir()) == [], where
    assert not list(app.state_folder.glob(".*")), where
    assert not list(app.location.glob(".*.new")), where


@pytest.mark.parametrize("keep", [False, True], ids=["all", "but the user's files"])
@pytest.mark.parametrize(("layout", "system", "fault"), TRIALS)
def test_an_interrupted_removal_leaves_the_app_whole_or_gone_and_is_gone_on_with(
    layout: Layout, system: str, keep: bool, fault: Fault, fast_folder: Path
) -> None:
    def attempt(at: int) -> tuple[Path, Callable[[], object]]:
        app = begin(fast_folder / str(at) / "app", layout=layout, platform=PLATFORMS[system]())
        to_two(app)
        again = Installation.open(app.location, platform=PLATFORMS[system]())
        return fast_folder / str(at), lambda: again.uninstall(keep_user_files=keep)

    for at, folder, ended in every_step(attempt, fault=fault):
        where = f"step {at}: {ended.steps[-1]} {ended.error}"
        check_told(ended, fault)
        entry = folder / "app" / "current" if layout is Layout.VERSIONED else folder / "app"
        if (entry / "run").exists():
            assert read_app(entry) == "2.0", where
        try:
            Installation.open(folder / "app", platform=PLATFORMS[system]()).uninstall(keep_user_files=keep)
        except Misconfigured:
            assert not (entry / "run").exists(), where
        left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        mine = {"app/settings.ini", "app/data/notes"} if keep else set()
        # What is left when the very last steps are cut off is no installation any more, and no obstacle to a new one.
        assert left - mine <= REMAINS, where
        assert mine <= left, where
        if not keep:
            assert begin(folder / "app", layout=layout, platform=PLATFORMS[system]()).status().phase is Phase.STEADY
        files.remove_tree(folder)


@pytest.mark.parametrize("fault", IDS, ids=list(IDS.values()))
def test_an_interrupted_adoption_leaves_the_app_alone_and_can_be_repeated(fault: Fault, fast_folder: Path) -> None:
    def adopt(location: Path) -> Installation:
        return Installation.adopt(location, record=make_record(Layout.IN_PLACE), release=release_of("1.0"))

    def attempt(at: int) -> tuple[Path, Callable[[], object]]:
        location = fast_folder / str(at) / "app"
        write_app(location, "1.0")
        return fast_folder / str(at), lambda: adopt(location)

    for at, folder, ended in every_step(attempt, fault=fault):
        check_told(ended, fault)
        assert read_app(folder / "app") == "1.0"
        try:
            app = adopt(folder / "app")
        except InstarError:
            app = Installation.open(folder / "app")
        assert app.status().current == release_of("1.0"), at
        app.recover()
        assert read_app(folder / "app") == "1.0"


def first_install(location: Path, layout: Layout) -> Installation:
    app = begin(location, layout=layout, version=None)
    stage_app(app, "1.0")
    app.switch(environment={})
    return app


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("fault", IDS, ids=list(IDS.values()))
def test_an_interrupted_creation_can_be_repeated(layout: Layout, fault: Fault, fast_folder: Path) -> None:
    def attempt(at: int) -> tuple[Path, Callable[[], object]]:
        location = fast_folder / str(at) / "app"
        (fast_folder / str(at)).mkdir()
        return fast_folder / str(at), lambda: first_install(location, layout)

    for at, folder, ended in every_step(attempt, fault=fault):
        check_told(ended, fault)
        try:
            app = Installation.open(folder / "app")
            app.recover()
            begun = app.status().phase is not Phase.EMPTY
        except Misconfigured:
            begun = False
        if not begun:
            app = first_install(folder / "app", layout)
        assert read_app(app.entry) == "1.0", at
