"""The Windows half on a model of Windows' rules: what is open, what a helper does, what its script says."""

import os
from pathlib import Path

import pytest

from instar.errors import Busy, InstallFailed
from instar.install import Action, Installation, Layout, StartReason, Switched
from instar.install.appdir.port import HandOver
from instar.install.appdir.windows import Windows, helper_script
from instar.testing.installs import begin, read_app, release_of, stage_app
from instar.testing.windows import WindowsModel

RESTART = ("C:\\Program Files\\it's\\app.exe", "--name", "two words", 'a "quote"')


@pytest.fixture
def model() -> WindowsModel:
    model = WindowsModel()
    model.running.add(os.getpid())
    return model


@pytest.fixture
def versioned(tmp_path: Path, model: WindowsModel) -> Installation:
    return begin(tmp_path / "app", platform=Windows(model))


@pytest.fixture
def in_place(tmp_path: Path, model: WindowsModel) -> Installation:
    return begin(tmp_path / "it's an app", layout=Layout.IN_PLACE, platform=Windows(model))


def again(app: Installation, model: WindowsModel) -> Installation:
    return Installation.open(app.location, platform=Windows(model))


def test_an_app_that_runs_is_updated_and_rolled_back_beside_itself(
    versioned: Installation, model: WindowsModel
) -> None:
    with model.opened(versioned.entry / "run"):
        stage_app(versioned, "2.0")
        assert versioned.switch(environment={}) is Switched.DONE
        with model.opened(versioned.entry / "run"):
            assert read_app(versioned.entry) == "2.0"
            assert versioned.rollback() is Switched.DONE
    assert read_app(versioned.entry) == "1.0"
    assert model.started == []


def test_an_old_tree_that_is_in_use_stays_whole_until_it_is_not(versioned: Installation, model: WindowsModel) -> None:
    with model.opened(versioned.entry / "run"):
        one = versioned.current_tree
        assert one is not None
        for version in ("2.0", "3.0"):
            stage_app(versioned, version)
            versioned.switch(environment={})
            versioned.confirm()
        assert read_app(one) == "1.0"
    versioned.confirm()
    assert not one.exists()


def test_an_app_in_place_that_runs_is_replaced_by_a_helper_when_it_has_exited(
    in_place: Installation, model: WindowsModel
) -> None:
    stage_app(in_place, "2.0")
    with model.opened(in_place.entry / "run"):
        assert in_place.switch(environment={}, restart=RESTART) is Switched.WHEN_APP_EXITS
        assert read_app(in_place.entry) == "1.0"
        assert in_place.status().current == release_of("1.0")
        with pytest.raises(Busy, match="as soon as the app exits"):
            in_place.confirm()
        assert in_place.started(environment={}).action is Action.RUN
    model.running.clear()
    model.run_helper()
    assert read_app(in_place.entry) == "2.0"
    app = again(in_place, model)
    assert app.status().current == release_of("2.0")
    assert app.started(environment={}).reason is StartReason.NOTHING
    assert app.status().starts == 1
    for _ in range(2):
        app.started(environment={})
    with model.opened(app.entry / "run"):
        started = app.started(environment={})
        assert (started.action, started.reason, started.by_helper) == (Action.RESTART, StartReason.ROLLED_BACK, True)
    model.run_helper()
    assert read_app(app.entry) == "1.0"
    assert again(app, model).status().current == release_of("1.0")


def test_a_helper_that_cannot_rename_leaves_all_as_it_was(in_place: Installation, model: WindowsModel) -> None:
    stage_app(in_place, "2.0")
    with model.opened(in_place.entry / "run"):
        in_place.switch(environment={})
        model.running.clear()
        model.run_helper()
        assert read_app(in_place.entry) == "1.0"
        app = again(in_place, model)
        # It runs again: the switch is given up, and what is staged can be switched to later.
        assert app.started(environment={}).action is Action.RUN
        assert app.status().staged == release_of("2.0")
        assert not app.status().unfinished
    model.run_helper()
    assert read_app(in_place.entry) == "1.0"
    app.switch(environment={})
    assert read_app(in_place.entry) == "2.0"


def test_a_helper_that_died_is_not_waited_for(in_place: Installation, model: WindowsModel) -> None:
    stage_app(in_place, "2.0")
    with model.opened(in_place.entry / "run"):
        in_place.switch(environment={})
    # Another process got the same number long after.
    journal = in_place.state_folder / "journal.json"
    os.utime(journal, (1_000_000, 1_000_000))
    app = again(in_place, model)
    assert app.started(environment={}).reason is StartReason.FINISHED
    assert read_app(app.entry) == "2.0"


def test_a_release_that_waits_for_the_start_is_put_in_place_by_the_helper(
    in_place: Installation, model: WindowsModel
) -> None:
    stage_app(in_place, "2.0")
    in_place.switch_at_start()
    with model.opened(in_place.entry / "run"):
        started = in_place.started(environment={}, restart=RESTART)
    assert (started.action, started.reason, started.by_helper) == (Action.RESTART, StartReason.SWITCHED, True)
    model.run_helper()
    assert read_app(in_place.entry) == "2.0"


@pytest.mark.parametrize("layout", Layout)
def test_an_app_that_runs_is_not_removed_and_stays_whole(tmp_path: Path, model: WindowsModel, layout: Layout) -> None:
    app = begin(tmp_path / "app", layout=layout, platform=Windows(model))
    with model.opened(app.entry / "run"):
        with pytest.raises(InstallFailed, match=r"permission.*Close the app"):
            app.uninstall()
        assert read_app(app.entry) == "1.0"
        app.recover()
    app.uninstall()
    assert not app.location.exists()


def test_a_file_in_use_is_not_repaired_but_told(versioned: Installation, model: WindowsModel) -> None:
    with versioned.lock(), model.opened(versioned.entry / "same"):
        fresh = versioned.new_staging() / "same"
        fresh.write_text("same in all\n")
        with pytest.raises(InstallFailed, match="Close the app"):
            versioned.replace_file("same", fresh, executable=False)
    assert read_app(versioned.entry) == "1.0"


def test_a_missing_junction_is_put_back(versioned: Installation, model: WindowsModel) -> None:
    model.remove_junction(versioned.entry)
    again(versioned, model).recover()
    assert read_app(versioned.entry) == "1.0"


def test_a_junction_that_cannot_be_named_is_made_where_it_was(tmp_path: Path) -> None:
    class Stubborn(WindowsModel):
        def rename(self, source: Path, target: Path) -> None:
            raise PermissionError(13, "refused", str(source), None, str(target))

    old, new, link = tmp_path / "old", tmp_path / "new", tmp_path / "link"
    old.mkdir()
    new.mkdir()
    model = Stubborn()
    model.create_junction(old, link)
    with pytest.raises(PermissionError):
        Windows(model).point(link, new)
    assert model.read_junction(link) == old


def test_a_program_may_be_named_without_its_ending(tmp_path: Path) -> None:
    (tmp_path / "app.exe").touch()
    assert Windows(WindowsModel()).command(["app", "x"], tmp_path) == [str(tmp_path / "app.exe"), "x"]


def test_the_helpers_script_quotes_every_path_and_word() -> None:
    task = HandOver(
        state_folder=Path("/s"),
        journal=Path("/s/it's/journal.json"),
        lock=Path("/s/lock"),
        renames=((Path("/a\u2019b"), Path("/c")),),
        process=42,
        restart=RESTART,
    )
    script = helper_script(task)
    assert "$journal = '/s/it''s/journal.json'" in script
    assert ",@('/a\u2019\u2019b', '/c')" in script
    assert "Wait-Process -Id 42 -Timeout 3600" in script
    assert "Start-Process -FilePath 'C:\\Program Files\\it''s\\app.exe'" in script
    assert """-ArgumentList '--name', '"two words"', '"a \\"quote\\""'""" in script
    assert "{" in script
    assert "}}" not in script
    assert script.count("{") == script.count("}")


def test_the_helper_starts_nothing_where_nothing_is_to_be_restarted() -> None:
    task = HandOver(Path("/s"), Path("/j"), Path("/l"), (), 1, ())
    assert "Start-Process" not in helper_script(task)
