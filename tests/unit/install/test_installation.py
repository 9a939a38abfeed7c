"""What an installation refuses, how it behaves with others at once, and what its errors say."""

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from instar.errors import Busy, InstallFailed, Misconfigured
from instar.install import Action, Installation, Layout, Phase, StartReason
from instar.system import files
from instar.testing.crash import DISK_FULL, READ_ONLY, Fault, run
from instar.testing.installs import begin, make_record, read_app, release_of, stage_app, write_app


@pytest.fixture(params=Layout)
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Installation:
    return begin(tmp_path / "app", layout=Layout(request.param), health=("run", "{}"))


COMPETITOR = """
import sys
from pathlib import Path
from instar.errors import Busy
from instar.install import Installation
from instar.testing.installs import stage_app

app = Installation.open(Path(sys.argv[1]))
sys.stdin.readline()
try:
    with app.lock():
        stage_app(app, "2.0")
        app.switch(environment={})
        print("worked", flush=True)
        sys.stdin.readline()  # holds the lock until all others have tried
except Busy:
    print("busy", flush=True)
"""


def test_of_eight_processes_one_works_and_the_others_are_told(app: Installation) -> None:
    command = [sys.executable, "-c", COMPETITOR, str(app.location)]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(8)
        ]
        pipes = [(process.stdin, process.stdout) for process in processes]
        for given, _ in pipes:
            assert given is not None
            given.write("go\n")
            given.flush()
        outcomes = [told.readline().strip() for _, told in pipes if told is not None]
    assert sorted(outcomes) == ["busy"] * 7 + ["worked"]
    assert read_app(app.entry) == "2.0"


def test_another_thread_is_told_too_and_the_same_one_may_go_on(app: Installation) -> None:
    told: list[str] = []

    def other() -> None:
        for installation in (app, Installation.open(app.location)):
            try:
                installation.confirm()
            except Busy as error:
                told.append(str(error))

    with app.lock():
        app.confirm()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(told) == 2
    assert app.status().phase is Phase.STEADY


def test_an_app_starts_while_another_process_works(app: Installation) -> None:
    with app.lock():
        started = Installation.open(app.location).started(environment={})
    assert (started.action, started.reason) == (Action.RUN, StartReason.POSTPONED)
    assert "Another process" in str(started.problem)


def test_status_is_told_while_another_process_works(app: Installation) -> None:
    with app.lock():
        assert Installation.open(app.location).status().current == release_of("1.0")


@pytest.mark.parametrize("fault", [DISK_FULL, READ_ONLY], ids=["full", "read-only"])
def test_an_app_starts_on_a_disk_that_refuses(app: Installation, fault: Fault) -> None:
    stage_app(app, "2.0")
    app.switch(environment={})

    def start() -> None:
        started = Installation.open(app.location).started(environment={})
        assert (started.action, started.reason) == (Action.RUN, StartReason.POSTPONED)
        assert "disk is" in str(started.problem)

    ended = run(start, below=app.location.parent, fault=fault, at=1)
    assert ended.reached
    assert ended.finished, ended.trace


def test_errors_say_what_runs_and_what_to_do(app: Installation) -> None:
    stage_app(app, "2.0")

    def switch() -> None:
        with pytest.raises(InstallFailed, match=r"the disk is full.*Free some space") as caught:
            Installation.open(app.location).switch(environment={})
        assert caught.value.running == "1.0"

    ended = run(switch, below=app.location.parent, fault=DISK_FULL, at=2)
    assert ended.reached
    assert ended.finished, ended.trace


def test_errors_of_the_callers_own_work_under_the_lock_are_its_own(app: Installation) -> None:
    with pytest.raises(FileNotFoundError), app.lock():
        (app.location / "missing").read_text()
    app.confirm()


def test_a_folder_with_something_in_it_is_not_installed_into(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "thesis.txt").write_text("three years of work")
    for layout in Layout:
        with pytest.raises(Misconfigured, match="not empty"):
            Installation.create(tmp_path / "app", record=make_record(layout))
    assert [path.name for path in (tmp_path / "app").iterdir()] == ["thesis.txt"]


def test_an_installation_is_not_begun_twice_unless_it_is_empty(app: Installation, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="already"):
        Installation.create(app.location, record=app.record)
    for layout in Layout:
        location = tmp_path / f"other {layout}"
        begin(location, layout=layout, version=None)
        again = begin(location, layout=layout)
        assert read_app(again.entry) == "1.0"


def test_adopting_needs_an_app_and_no_installation(app: Installation, tmp_path: Path) -> None:
    record, release = make_record(Layout.IN_PLACE), release_of("1.0")
    for location in (tmp_path / "missing", tmp_path / "empty", app.location):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(Misconfigured):
            Installation.adopt(location, record=record, release=release)
    with pytest.raises(Misconfigured):
        Installation.adopt(tmp_path, record=make_record(Layout.VERSIONED), release=release)
    assert not (tmp_path / ".missing.instar").exists()


def test_where_there_is_no_installation_none_is_opened(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no installation"):
        Installation.open(tmp_path)


def test_an_installation_is_opened_through_a_link(app: Installation, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(app.location)
    assert Installation.open(tmp_path / "link").location == app.location.resolve()


def test_the_record_changes_but_for_product_and_layout(app: Installation) -> None:
    other = next(layout for layout in Layout if layout is not app.record.layout)
    with pytest.raises(Misconfigured):
        app.update_record(make_record(other))
    app.update_record(make_record(app.record.layout, device_id="new"))
    assert Installation.open(app.location).record.device_id == "new"


def test_a_tree_is_built_only_under_the_lock_and_swept_away_unless_staged(app: Installation) -> None:
    with pytest.raises(RuntimeError, match="lock"):
        app.new_staging()
    with app.lock():
        folder = app.new_staging()
        app.confirm()
        assert folder.is_dir()
    app.recover()
    assert not folder.exists()


def test_downloads_are_kept_from_run_to_run(app: Installation) -> None:
    app.downloads.mkdir()
    (app.downloads / "half").write_text("…")
    stage_app(app, "2.0")
    app.switch(environment={})
    app.confirm()
    assert (app.downloads / "half").exists()


def test_the_release_that_runs_is_not_staged_again(app: Installation) -> None:
    with pytest.raises(Misconfigured, match="runs already"):
        stage_app(app, "1.0")


def test_without_a_staged_release_there_is_nothing_to_switch_to(app: Installation) -> None:
    for operation in (lambda: app.switch(environment={}), app.switch_at_start):
        with pytest.raises(Misconfigured):
            operation()


def test_a_staged_release_can_be_dropped_or_replaced(app: Installation) -> None:
    stage_app(app, "2.0")
    stage_app(app, "3.0")
    assert app.status().staged == release_of("3.0")
    app.discard()
    app.discard()
    assert app.status().staged is None
    trees = app.state_folder / "trees" if app.entry == app.location else app.location / "versions"
    assert [path.name for path in trees.glob("[23].0-*")] == []


def test_the_same_release_can_be_staged_again_after_a_failure_was_forgotten(app: Installation) -> None:
    stage_app(app, "2.0")
    app.switch(environment={})
    app.rollback()
    app.forget_failures()
    stage_app(app, "2.0")
    app.switch(environment={})
    assert read_app(app.entry) == "2.0"


def health(app: Installation, script: str, version: str = "2.0") -> str:
    with app.lock():
        staging = app.new_staging()
        write_app(staging, version)
        (staging / "run").write_text(script)
        app.stage(staging, release_of(version))
    with pytest.raises(InstallFailed) as caught:
        app.switch(environment={"GIVEN": "yes"})
    assert read_app(app.entry) == "1.0"
    return str(caught.value)


def test_the_health_command_gets_the_tree_and_only_the_given_environment(app: Installation) -> None:
    said = health(app, '#!/bin/sh\necho "[$GIVEN] [$HOME] [$(basename "$1" | cut -c1-4)] [$(cat lib/one)]"\nexit 9\n')
    assert "[yes] [] [2.0-] [one 2.0]" in said


def test_a_health_command_that_cannot_be_started_is_the_releases_fault(app: Installation) -> None:
    assert "cannot be started" in health(app, "not a program\n#" + "\0" * 8, "2.0")
    assert app.status().failed


def test_a_health_command_that_hangs_is_ended(tmp_path: Path) -> None:
    app = begin(tmp_path / "app", health=("run",), health_timeout=0.3)
    assert "did not end within 0.3 seconds" in health(app, "#!/bin/sh\nsleep 60\n")


def test_repair_does_not_follow_links_out_of_the_tree(app: Installation, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "one").write_text("not the app's")
    files.remove_tree(app.entry / "lib")
    (app.entry / "lib").symlink_to(outside)
    assert not app.remove("lib/one")
    with app.lock():
        fresh = app.new_staging()
        write_app(fresh, "1.0")
        app.make_folder("lib/deep")
        for path in ("lib/one", "lib/deep/two"):
            app.replace_file(path, fresh / path, executable=False)
    assert (outside / "one").read_text() == "not the app's"
    assert read_app(app.entry) == "1.0"


@pytest.mark.parametrize("path", ["../x", "/x", "", "a//b", "a/../../x"])
def test_repair_stays_inside_the_tree(app: Installation, path: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("x")
    for operation in (
        lambda: app.replace_file(path, source, executable=False),
        lambda: app.remove(path),
        lambda: app.make_folder(path),
        lambda: app.replace_link(path, "x"),
    ):
        with pytest.raises(Misconfigured):
            operation()
    with pytest.raises(Misconfigured):
        app.replace_link("link", "../../outside")


def test_repair_makes_room_and_links(app: Installation) -> None:
    (app.entry / "same").unlink()
    (app.entry / "same").mkdir()
    (app.entry / "same" / "x").touch()
    with app.lock():
        fresh = app.new_staging() / "same"
        fresh.write_text("same in all\n")
        app.replace_file("same", fresh, executable=False)
        app.replace_link("data/link", "notes")
    assert read_app(app.entry) == "1.0"
    assert os.readlink(app.entry / "data" / "link") == "notes"  # noqa: PTH115  # the text itself


def test_removing_a_folder_spares_the_users_files_in_it(app: Installation) -> None:
    (app.entry / "data" / "sub").mkdir()
    assert not app.remove("data")
    assert (app.entry / "data" / "notes").exists()
    assert app.remove("lib")


def test_after_removal_nothing_works_and_everything_says_so(app: Installation) -> None:
    other = Installation.open(app.location)
    app.uninstall()
    for operation in (other.confirm, other.rollback, other.recover):
        with pytest.raises((Misconfigured, InstallFailed)):
            operation()
    assert not app.location.exists()
    assert begin(app.location, layout=app.record.layout).status().phase is Phase.STEADY


def test_an_empty_installation_says_so(tmp_path: Path) -> None:
    app = begin(tmp_path / "app", version=None)
    assert app.current_tree is None
    assert app.started(environment={}).action is Action.RUN
    for operation in (app.confirm, app.rollback, lambda: app.remove("x")):
        with pytest.raises(Misconfigured, match="No release is installed"):
            operation()
    app.uninstall()
    assert not (tmp_path / "app").exists()
