"""A storage that was turned back is noticed by a machine that published before."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from instar.errors import Untrusted
from instar.model.version import Version
from instar.publish import Project, set_floor
from instar.publish.seen import SEEN_FILE
from instar.system.files import remove_tree
from tests.support.projects import new_project, publish, snapshot_of


@pytest.fixture
def turned_back(tmp_path: Path) -> Project:
    """A project whose storage somebody put back to the state from before a security floor."""
    project = new_project(tmp_path / "project")
    publish(project, "1.0")
    repository = project.folder / "repository"
    shutil.copytree(repository, tmp_path / "backup")
    publish(project, "1.1")
    set_floor(project, Version("1.1"))
    remove_tree(repository)
    shutil.copytree(tmp_path / "backup", repository)
    return project


def test_an_older_repository_than_before_is_not_signed_anew(turned_back: Project) -> None:
    before = snapshot_of(turned_back.folder / "repository")
    with pytest.raises(Untrusted, match="older repository") as caught:
        publish(turned_back, "1.2")
    assert SEEN_FILE in str(caught.value)
    assert snapshot_of(turned_back.folder / "repository") == before


def test_whoever_restored_it_can_say_so(turned_back: Project) -> None:
    (turned_back.folder / SEEN_FILE).unlink()
    publish(turned_back, "1.2")
    publish(turned_back, "1.3")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"storage": "repository", "versions": 3}'])
def test_a_note_that_cannot_be_read_stops_nobody(turned_back: Project, content: bytes) -> None:
    (turned_back.folder / SEEN_FILE).write_bytes(content)
    publish(turned_back, "1.2")


def test_another_storage_is_no_older_state_of_this_one(turned_back: Project) -> None:
    settings = replace(turned_back.settings, storage="elsewhere")
    publish(replace(turned_back, settings=settings), "1.2")
