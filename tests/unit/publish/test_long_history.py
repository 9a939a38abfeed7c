"""What a repository with thousands of releases costs a device that looks, and a publisher who adds one more."""

from pathlib import Path

import pytest

from instar.model.version import Version
from instar.publish import Project, list_releases
from instar.testing.histories import fill
from instar.trust import TrustedMetadata, channels_path, floor_path, manifest_path
from tests.support.projects import LINUX, days, in_memory, new_project, publish

RELEASES = 10_000
PROMISED = 64 * 1024
"""Bytes of metadata that a check may fetch when it finds something."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = in_memory(new_project(tmp_path_factory.mktemp("history") / "project"))
    fill(project, RELEASES)
    return project


def test_a_check_that_finds_something_fetches_little(project: Project, tmp_path: Path) -> None:
    fetched: dict[str, int] = {}

    def fetch(key: str, limit: int) -> bytes:
        data = project.fetch(key, limit)
        fetched[key] = len(data)
        return data

    metadata = TrustedMetadata(tmp_path / "cache", root=project.root, fetch=fetch, clock=project.clock)
    metadata.refresh()
    channels = metadata.target(channels_path("app"))
    metadata.target(floor_path("app"))
    fetch(channels.key, channels.size)
    before = sum(fetched.values())
    assert before < PROMISED
    fetched.clear()
    # A device that was up to date: one more release, and everything that its release changed is fetched anew.
    publish(project, f"{RELEASES + 1}.0")
    metadata = TrustedMetadata(tmp_path / "cache", root=project.root, fetch=fetch, clock=project.clock)
    metadata.refresh()
    channels = metadata.target(channels_path("app"))
    assert metadata.target(manifest_path("app", LINUX, f"{RELEASES + 1}.0"))
    metadata.target(floor_path("app"))
    fetch(channels.key, channels.size)
    assert sum(fetched.values()) < PROMISED, fetched


def test_one_more_release_reads_only_what_it_needs(project: Project) -> None:
    read = []

    class Counting(Project):
        def fetch(self, key: str, limit: int) -> bytes:
            read.append(key)
            return super().fetch(key, limit)

    counting = Counting(project.folder, project.settings, project.storage, project.root, clock=project.clock)
    done = publish(counting, f"{RELEASES + 2}.0")
    assert done.bases[-1] > Version(f"{RELEASES - 3}.0")
    # Its own bin and those of the releases that it builds on, not all 256.
    assert len(read) < 60


def test_the_list_still_names_every_release(project: Project) -> None:
    assert len(list_releases(project).releases) >= RELEASES


def test_what_a_clock_far_ahead_makes_due_is_due_for_all_bins(project: Project) -> None:
    roles = project.roles()
    assert len([name for name in roles.expiries() if "-bins-" in name]) == 256
    assert min(roles.expiries().values()) > project.clock.now() + days(1)
