"""What an installation promises in both layouts on every platform."""

import sys
from pathlib import Path

import pytest

from instar.errors import InstallFailed, Misconfigured
from instar.install import Action, Confirmation, Installation, Layout, Phase, StartReason, Switched
from instar.install.appdir.port import Platform
from instar.testing.installs import PLATFORMS, begin, make_record, read_app, release_of, stage_app, write_app

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="borrows Linux's calls for all platforms")


@pytest.fixture(params=PLATFORMS)
def platform(request: pytest.FixtureRequest) -> Platform:
    return PLATFORMS[request.param]()


@pytest.fixture(params=Layout)
def layout(request: pytest.FixtureRequest) -> Layout:
    return Layout(request.param)


@pytest.fixture
def app(tmp_path: Path, platform: Platform, layout: Layout) -> Installation:
    return begin(tmp_path / "app", layout=layout, platform=platform, health=("run", "--version"))


def update(app: Installation, version: str, *, confirm: bool = True) -> None:
    stage_app(app, version)
    assert app.switch(environment={}) is Switched.DONE
    if confirm:
        app.confirm()


def current(app: Installation) -> str:
    release = app.status().current
    assert release is not None
    assert read_app(app.entry) == str(release.version)
    assert app.current_tree is not None
    assert app.current_tree.resolve() == app.entry.resolve()
    return str(release.version)


def test_the_first_release_is_steady(app: Installation) -> None:
    assert current(app) == "1.0"
    assert app.status().phase is Phase.STEADY
    assert app.started(environment={}).action is Action.RUN


def test_an_update_is_pending_until_it_is_confirmed(app: Installation) -> None:
    update(app, "2.0", confirm=False)
    assert current(app) == "2.0"
    assert app.status().phase is Phase.PENDING
    assert app.status().previous == release_of("1.0")
    app.confirm()
    app.confirm()
    assert app.status().phase is Phase.STEADY


def test_the_users_files_come_along_and_stale_ones_do_not(app: Installation) -> None:
    stage_app(app, "2.0")
    (app.entry / "data" / "late").write_text("written after staging")
    app.switch(environment={})
    assert current(app) == "2.0"
    assert (app.entry / "settings.ini").read_text() == "mine\n"
    assert (app.entry / "data" / "notes").read_text() == "my notes\n"
    assert (app.entry / "data" / "late").exists()
    assert not (app.entry / "only-in-1.0").exists()


def test_a_release_that_is_never_confirmed_is_rolled_back_and_not_tried_again(app: Installation) -> None:
    update(app, "2.0", confirm=False)
    (app.entry / "data" / "new").write_text("written by 2.0")
    for start in range(1, 4):
        assert app.started(environment={}).action is Action.RUN
        assert app.status().starts == start
    started = app.started(environment={})
    assert (started.action, started.reason) == (Action.RESTART, StartReason.ROLLED_BACK)
    assert current(app) == "1.0"
    assert (app.entry / "data" / "new").exists()
    assert [failure.version for failure in app.status().failed] == [release_of("2.0").version]
    with pytest.raises(InstallFailed, match="failed on this machine"):
        stage_app(app, "2.0")
    assert app.started(environment={}).reason is StartReason.NOTHING
    update(app, "3.0")
    assert current(app) == "3.0"


def test_a_release_whose_health_command_fails_is_never_selected(app: Installation) -> None:
    stage_app(app, "2.0", code=3)
    with pytest.raises(InstallFailed, match="ended with code 3") as caught:
        app.switch(environment={})
    assert caught.value.running == "1.0"
    assert current(app) == "1.0"
    assert app.status().staged is None
    with pytest.raises(InstallFailed, match="failed on this machine"):
        stage_app(app, "2.0")
    app.forget_failures()
    stage_app(app, "2.0")


def test_a_release_over_an_unconfirmed_one_falls_back_to_the_last_confirmed(app: Installation) -> None:
    update(app, "2.0", confirm=False)
    update(app, "3.0", confirm=False)
    assert app.status().previous == release_of("1.0")
    app.rollback()
    assert current(app) == "1.0"


def test_a_release_can_wait_for_the_next_start(app: Installation) -> None:
    stage_app(app, "2.0")
    app.switch_at_start()
    assert app.status().at_start
    assert current(app) == "1.0"
    started = app.started(environment={})
    assert (started.action, started.reason) == (Action.RESTART, StartReason.SWITCHED)
    assert current(app) == "2.0"
    assert app.started(environment={}).action is Action.RUN
    assert app.status().starts == 1


def test_an_ill_release_that_waited_for_the_start_leaves_the_app_running(app: Installation) -> None:
    stage_app(app, "2.0", code=1)
    app.switch_at_start()
    started = app.started(environment={})
    assert (started.action, started.reason) == (Action.RUN, StartReason.UNHEALTHY)
    assert current(app) == "1.0"
    assert app.started(environment={}).reason is StartReason.NOTHING


def test_confirming_keeps_exactly_one_older_tree(app: Installation) -> None:
    for version in ("2.0", "3.0", "4.0"):
        update(app, version)
    trees = app.current_tree.parent if app.entry != app.location else app.state_folder / "trees"  # type: ignore[union-attr]
    names = {path.name.split("-")[0] for path in trees.iterdir()}
    assert names == ({"3.0", "4.0"} if app.entry != app.location else {"3.0"})
    app.rollback()
    assert current(app) == "3.0"
    with pytest.raises(Misconfigured, match="no previous release"):
        app.rollback()


def test_an_installation_is_found_again(app: Installation, platform: Platform) -> None:
    update(app, "2.0", confirm=False)
    again = Installation.open(app.location, platform=platform)
    assert again.status() == app.status()
    assert again.record == app.record
    assert current(again) == "2.0"


def test_uninstalling_leaves_nothing(app: Installation, tmp_path: Path) -> None:
    update(app, "2.0")
    stage_app(app, "3.0")
    assert app.uninstall() == ()
    assert list(tmp_path.iterdir()) == []


def test_uninstalling_leaves_the_users_files_when_asked_to(app: Installation, tmp_path: Path) -> None:
    update(app, "2.0")
    left = app.uninstall(keep_user_files=True)
    assert set(left) == {app.location / "settings.ini", app.location / "data" / "notes"}
    assert set(tmp_path.rglob("*")) == {app.location, app.location / "data", *left}


def test_a_confirmation_by_health_waits_for_nobody(tmp_path: Path, platform: Platform, layout: Layout) -> None:
    app = begin(
        tmp_path / "app", layout=layout, platform=platform, health=("run",), confirmation=Confirmation.BY_HEALTH
    )
    update(app, "2.0", confirm=False)
    assert app.status().phase is Phase.STEADY
    app.rollback()
    assert current(app) == "1.0"


def test_a_confirmation_by_health_keeps_exactly_one_older_tree(
    tmp_path: Path, platform: Platform, layout: Layout
) -> None:
    app = begin(
        tmp_path / "app", layout=layout, platform=platform, health=("run",), confirmation=Confirmation.BY_HEALTH
    )
    # Nobody ever calls started or confirm here.
    for version in ("2.0", "3.0"):
        stage_app(app, version)
        app.switch(environment={})
    trees = app.location / "versions" if layout is Layout.VERSIONED else app.state_folder / "trees"
    names = {path.name.split("-")[0] for path in trees.iterdir()}
    assert names == ({"2.0", "3.0"} if layout is Layout.VERSIONED else {"2.0"})


def test_single_files_of_the_running_tree_can_be_put_right(app: Installation) -> None:
    (app.entry / "lib" / "one").unlink()
    (app.entry / "same").write_text("spoilt")
    (app.entry / "extra").write_text("not ours")
    with app.lock():
        fresh = app.new_staging()
        write_app(fresh, "1.0")
        app.replace_file("lib/one", fresh / "lib" / "one", executable=False)
        app.replace_file("same", fresh / "same", executable=True)
        assert app.remove("extra")
        assert not app.remove("extra")
        assert not app.remove("settings.ini")
    assert current(app) == "1.0"
    assert (app.entry / "same").stat().st_mode & 0o111


def test_an_app_that_is_there_is_taken_over_untouched(tmp_path: Path, platform: Platform) -> None:
    location = tmp_path / "app"
    write_app(location, "1.0")
    app = Installation.adopt(
        location, record=make_record(Layout.IN_PLACE), release=release_of("1.0"), platform=platform
    )
    assert app.status().phase is Phase.STEADY
    update(app, "2.0", confirm=False)
    assert current(app) == "2.0"
    app.rollback()
    assert current(app) == "1.0"
