"""What is lost, damaged or changed behind our back is made good from what is there."""

import shutil
from pathlib import Path

import pytest

from instar.errors import InstallFailed, Misconfigured
from instar.install import Installation, Layout, Phase
from instar.system import files
from instar.testing.installs import begin, read_app, release_of, stage_app

GARBAGE = [b"", b"{", b"\0" * 4096, b'{"format": "instar-state-1"}', b"x" * (2 << 20)]


@pytest.fixture(params=Layout)
def layout(request: pytest.FixtureRequest) -> Layout:
    return Layout(request.param)


@pytest.fixture
def app(tmp_path: Path, layout: Layout) -> Installation:
    """Give an installation whose release 2.0 is pending over 1.0."""
    app = begin(tmp_path / "app", layout=layout)
    stage_app(app, "2.0")
    app.switch(environment={})
    app.started(environment={})
    return app


def reopened(app: Installation) -> Installation:
    return Installation.open(app.location)


@pytest.mark.parametrize("data", [None, *GARBAGE], ids=["missing", "empty", "cut", "zeros", "no keys", "too long"])
def test_a_lost_state_is_made_anew_and_a_pending_release_can_still_roll_back(
    app: Installation, data: bytes | None
) -> None:
    state = app.state_folder / "state.json"
    state.unlink() if data is None else state.write_bytes(data)
    app = reopened(app)
    assert (app.status().phase, app.status().current, app.status().previous) == (
        Phase.PENDING,
        release_of("2.0"),
        release_of("1.0"),
    )
    for _ in range(4):
        app.started(environment={})
    assert read_app(app.entry) == "1.0"


def test_a_lost_state_of_a_confirmed_release_is_steady(app: Installation) -> None:
    app.confirm()
    (app.state_folder / "state.json").unlink()
    app = reopened(app)
    app.recover()
    assert (app.status().phase, app.status().current) == (Phase.STEADY, release_of("2.0"))
    app.rollback()
    assert read_app(app.entry) == "1.0"


@pytest.mark.parametrize("name", ["state.json", "journal.json"])
def test_a_newer_format_is_refused_and_left_as_it_is(app: Installation, name: str) -> None:
    path = app.state_folder / name
    kind = name.removesuffix(".json")
    path.write_text(f'{{"format": "instar-{kind}-2"}}')
    for operation in (app.status, app.confirm, app.recover, lambda: app.started(environment={})):
        with pytest.raises(Misconfigured, match="newer instar"):
            operation()
    assert path.read_text() == f'{{"format": "instar-{kind}-2"}}'
    assert read_app(app.entry) == "2.0"


def test_a_damaged_record_is_a_clear_error(app: Installation) -> None:
    (app.state_folder / "record.json").write_bytes(b"{")
    with pytest.raises(Misconfigured, match=r"is damaged.*backup"):
        reopened(app)
    assert read_app(app.entry) == "2.0"


def test_a_damaged_journal_is_no_journal(app: Installation) -> None:
    (app.state_folder / "journal.json").write_bytes(b"\0\0")
    app.confirm()
    assert app.status().phase is Phase.STEADY


def test_descriptions_of_trees_that_are_damaged_do_no_harm(app: Installation) -> None:
    for path in (app.state_folder / "releases").iterdir():
        path.write_bytes(b"?")
    app = reopened(app)
    assert app.status().current == release_of("2.0")
    app.confirm()
    app.rollback()
    assert read_app(app.entry) == "1.0"


def test_everything_that_says_what_runs_is_lost(app: Installation, layout: Layout) -> None:
    (app.state_folder / "state.json").unlink()
    shutil.copytree(app.state_folder / "releases", app.state_folder / "gone")
    for path in (app.state_folder / "releases").iterdir():
        path.unlink()
    app = reopened(app)
    if layout is Layout.IN_PLACE:
        with pytest.raises(InstallFailed, match="cannot be told"):
            app.recover()
        assert read_app(app.entry) == "2.0"


def test_a_copied_installation_goes_on_where_it_was(app: Installation, tmp_path: Path, layout: Layout) -> None:
    (tmp_path / "copy").mkdir()
    shutil.copytree(app.location, tmp_path / "copy" / "app", symlinks=True)
    if layout is Layout.IN_PLACE:
        shutil.copytree(app.state_folder, tmp_path / "copy" / app.state_folder.name, symlinks=True)
    copy = Installation.open(tmp_path / "copy" / "app")
    assert copy.status() == app.status()
    copy.rollback()
    assert read_app(copy.entry) == "1.0"
    assert read_app(app.entry) == "2.0"


def test_a_previous_tree_that_was_removed_by_hand_is_not_gone_back_to(app: Installation, layout: Layout) -> None:
    trees = app.location / "versions" if layout is Layout.VERSIONED else app.state_folder / "trees"
    files.remove_tree(next(trees.glob("1.0-*")))
    assert app.status().previous is None
    for _ in range(5):
        app.started(environment={})
    assert read_app(app.entry) == "2.0"


def test_a_staged_tree_that_was_removed_by_hand_is_not_switched_to(app: Installation, layout: Layout) -> None:
    stage_app(app, "3.0")
    trees = app.location / "versions" if layout is Layout.VERSIONED else app.state_folder / "trees"
    files.remove_tree(next(trees.glob("3.0-*")))
    with pytest.raises(Misconfigured):
        app.switch(environment={})
    assert read_app(app.entry) == "2.0"


def test_a_running_tree_that_was_removed_by_hand_gives_way_to_the_one_before(app: Installation, layout: Layout) -> None:
    tree = app.current_tree
    assert tree is not None
    files.remove_tree(tree)
    app.recover()
    assert read_app(app.entry) == "1.0"
    assert app.status().current == release_of("1.0")


def test_an_installation_without_any_tree_can_be_installed_into(app: Installation, layout: Layout) -> None:
    for tree in (app.current_tree, *(app.location / "versions").glob("*"), *(app.state_folder / "trees").glob("*")):
        if tree is not None and tree.exists():
            files.remove_tree(tree)
    assert app.status().phase is Phase.EMPTY
    stage_app(app, "3.0")
    app.switch(environment={})
    assert read_app(app.entry) == "3.0"


class TestLink:
    @pytest.fixture
    def layout(self) -> Layout:
        return Layout.VERSIONED

    def test_a_link_that_was_removed_by_hand_is_put_back(self, app: Installation) -> None:
        app.entry.unlink()
        app.recover()
        assert read_app(app.entry) == "2.0"

    def test_a_link_that_was_led_to_an_older_release_by_hand_is_believed(self, app: Installation) -> None:
        older = next((app.location / "versions").glob("1.0-*"))
        app.entry.unlink()
        app.entry.symlink_to(older)
        app.recover()
        assert app.status().current == release_of("1.0")
        assert app.status().phase is Phase.STEADY

    def test_a_link_that_was_led_astray_is_led_back(self, app: Installation, tmp_path: Path) -> None:
        app.entry.unlink()
        app.entry.symlink_to(tmp_path)
        app.recover()
        assert read_app(app.entry) == "2.0"
