"""Commands that change who is offered what, on a real repository."""

import json
import shutil
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from instar.errors import Busy, Conflict, Misconfigured
from instar.model.digest import Digest
from instar.model.names import Name
from instar.model.version import Version
from instar.policy.select import Device, select_release
from instar.publish import (
    Offer,
    Project,
    Where,
    halt,
    list_releases,
    open_project,
    promote,
    resume,
    rollout,
    set_floor,
    verify_repository,
    yank,
)
from instar.publish.session import publishing, read_channels
from instar.testing.histories import fill
from instar.trust.layout import manifest_path
from instar.trust.roles import Authority
from tests.support.projects import LINUX, bundle, in_memory, new_project, publish, publish_many, snapshot_of

STABLE, BETA = Name("stable"), Name("beta")
MAC = Name("macos-arm64")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = new_project(tmp_path / "project")
    publish_many(project, "1.0", "1.1")
    return project


def offers(project: Project, version: str) -> dict[str, str]:
    row = next(row for row in list_releases(project).releases if str(row.version) == version)
    return {offered.channel: f"{offered.state} {offered.percent:g}" for offered in row.offered}


def test_a_release_goes_its_way_from_beta_to_everybody(project: Project) -> None:
    publish(project, "1.2", channel="beta", percent=50)
    promote(project, Version("1.2"), STABLE, offer=Offer(10))
    assert offers(project, "1.2") == {"beta": "offered 50", "stable": "offered 10"}
    rollout(project, Version("1.2"), Offer(100), where=Where(channel=STABLE))
    halt(project, Version("1.2"))
    assert offers(project, "1.2") == {"beta": "halted 50", "stable": "halted 100"}
    resume(project, Version("1.2"), where=Where(channel=BETA))
    assert offers(project, "1.2") == {"beta": "offered 50", "stable": "halted 100"}
    changes = yank(project, Version("1.2"))
    assert [(change.platform, change.offered.state) for change in changes] == [(LINUX, "yanked")] * 2
    assert verify_repository(project).problems == []


def test_none_of_it_needs_the_owners_key(project: Project) -> None:
    (project.folder / "keys" / "owner.pem").unlink()
    promote(project, Version("1.0"), BETA)
    rollout(project, Version("1.1"), Offer(5))
    halt(project, Version("1.1"))
    resume(project, Version("1.1"))
    yank(project, Version("1.1"))
    with pytest.raises(Misconfigured, match="no key file"):
        set_floor(project, Version("1.0"))


def test_a_version_in_two_channels_needs_one_named(project: Project) -> None:
    promote(project, Version("1.1"), BETA)
    with pytest.raises(Misconfigured, match=r"channels beta, stable.*--channel"):
        rollout(project, Version("1.1"), Offer(5))
    rollout(project, Version("1.1"), Offer(5, timedelta(hours=1)), where=Where(channel=BETA))
    assert offers(project, "1.1") == {"beta": "offered 5", "stable": "offered 100"}


def test_what_does_not_exist_is_refused_by_name(project: Project) -> None:
    for change in (
        lambda: promote(project, Version("9.0"), BETA),
        lambda: promote(project, Version("1.0"), BETA, platform=MAC),
        lambda: rollout(project, Version("9.0"), Offer(5)),
        lambda: halt(project, Version("9.0")),
        lambda: resume(project, Version("1.0"), where=Where(channel=BETA)),
        lambda: yank(project, Version("9.0")),
        lambda: yank(project, Version("1.0"), where=Where(platform=MAC)),
    ):
        with pytest.raises(Misconfigured, match="instar list"):
            change()


def test_what_changes_nothing_publishes_nothing(project: Project) -> None:
    before = snapshot_of(project.storage.root)
    resume(project, Version("1.1"))
    assert snapshot_of(project.storage.root) == before


def test_a_yanked_release_stays_yanked(project: Project) -> None:
    yank(project, Version("1.1"))
    for change in (
        lambda: resume(project, Version("1.1")),
        lambda: rollout(project, Version("1.1"), Offer(5)),
        lambda: promote(project, Version("1.1"), BETA),
        lambda: publish(project, "1.1"),
    ):
        with pytest.raises(Misconfigured, match=r"yanked|exists"):
            change()
    entries = read_channels(project, project.roles()).of("stable", LINUX)
    device = Device("d", "app", Version("1.1"))
    decision = select_release(entries, device, now=project.clock.now())
    assert decision.entry
    assert str(decision.entry.version) == "1.0"


def test_promoting_takes_all_platforms_and_goes_on_where_it_was_left(project: Project, tmp_path: Path) -> None:
    publish(project, "1.1", bundle(tmp_path / "mac"), platform=MAC)
    promote(project, Version("1.1"), BETA, platform=MAC)
    promote(project, Version("1.1"), BETA)
    channels = read_channels(project, project.roles())
    assert [str(e.version) for platform in (LINUX, MAC) for e in channels.of("beta", platform)] == ["1.1", "1.1"]
    with pytest.raises(Misconfigured, match="in the channel beta already"):
        promote(project, Version("1.1"), BETA)


def test_yanking_reaches_devices_that_run_something_long_out_of_the_list(tmp_path: Path) -> None:
    project = in_memory(new_project(tmp_path / "project"))
    fill(project, 60)
    assert not any(str(e.version) == "3.0" for e in read_channels(project, project.roles()).of("stable", LINUX))
    yank(project, Version("3.0"))
    assert any(
        str(e.version) == "3.0" and e.yanked for e in read_channels(project, project.roles()).of("stable", LINUX)
    )


class TestFloor:
    def test_it_is_signed_by_the_owner_and_listed(self, project: Project) -> None:
        assert set_floor(project, Version("1.1")) is None
        assert list_releases(project).floor == "1.1"
        assert verify_repository(project).problems == []

    def test_it_only_rises_unless_that_is_meant(self, project: Project) -> None:
        set_floor(project, Version("1.1"))
        with pytest.raises(Misconfigured, match="--allow-lower"):
            set_floor(project, Version("1.0"))
        assert set_floor(project, Version("1.0"), allow_lower=True) == Version("1.1")

    def test_it_never_leaves_a_channel_with_nothing(self, project: Project) -> None:
        with pytest.raises(Misconfigured, match="nothing for linux-x86_64"):
            set_floor(project, Version("2.0"))


class TestTwoPublishers:
    def test_the_second_is_told_that_the_first_is_at_work(self, project: Project) -> None:
        with publishing(project), pytest.raises(Busy):
            halt(project, Version("1.1"))
        halt(project, Version("1.1"))

    def test_of_many_at_once_each_works_or_is_told(self, project: Project) -> None:
        told: list[str] = []

        def work(percent: int) -> None:
            try:
                rollout(project, Version("1.1"), Offer(percent))
            except Busy:
                told.append("busy")
            else:
                told.append("done")

        threads = [threading.Thread(target=work, args=(percent,)) for percent in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(told) == 8
        assert "done" in told
        assert verify_repository(project).problems == []

    def test_where_a_lock_did_not_hold_the_slower_one_changes_nothing(self, project: Project) -> None:
        with publishing(project) as session:
            # Somebody whom the lock does not keep out: another machine, on a network file system without locks.
            timestamp = project.storage.root / "metadata" / "timestamp.json"
            other = timestamp.read_bytes() + b" "
            timestamp.write_bytes(other)
            session.roles.set_floor("app", "1.0")
            with pytest.raises(Conflict):
                session.commit(project.open_signers(session.roles, Authority))
        assert timestamp.read_bytes() == other
        assert project.roles().floor("app") is None
        # And what it had uploaded is in nobody's way.
        set_floor(project, Version("1.0"))
        assert project.roles().target(manifest_path("app", LINUX, "1.1"))

    def test_what_a_slower_one_notes_never_takes_from_the_faster_one(self, project: Project) -> None:
        with publishing(project) as slow:
            root = project.storage.root
            # The faster one does all of its work in between, on a copy of the folder that then replaces it.
            copy = project.folder.parent / "copy"
            shutil.copytree(project.folder, copy)
            halt(open_project(copy), Version("1.1"))
            shutil.copytree(copy / "repository", root, dirs_exist_ok=True)
            slow.roles.set_floor("app", "1.0")
            with pytest.raises(Conflict):
                slow.commit(project.open_signers(slow.roles, Authority))
        assert verify_repository(project).problems == []
        resume(project, Version("1.1"))
        assert verify_repository(project).problems == []
        assert not list(project.storage.list("publishing/"))

    def test_a_note_from_before_somebody_elses_publication_removes_nothing(self, project: Project) -> None:
        keys = [listed.key for listed in project.storage.list("packs/")]
        project.storage.write("publishing/x.json", json.dumps({"before": "0" * 64, "keys": keys}).encode())
        halt(project, Version("1.1"))
        assert verify_repository(project).problems == []

    def test_a_note_that_says_nothing_is_thrown_away(self, project: Project) -> None:
        for name, text in [
            ("a", b"\xff"),
            ("b", b"[]"),
            ("c", b'{"before": null}'),
            ("d", b'{"keys": 7, "before": 1}'),
        ]:
            project.storage.write(f"publishing/{name}.json", text)
        halt(project, Version("1.1"))
        assert not list(project.storage.list("publishing/"))
        assert verify_repository(project).problems == []

    def test_a_note_never_reaches_the_root_or_the_timestamp(self, project: Project) -> None:
        before = Digest.of(project.fetch("metadata/timestamp.json", 1 << 20)).hex
        keys = ["metadata/timestamp.json", "metadata/1.root.json"]
        project.storage.write("publishing/x.json", json.dumps({"before": before, "keys": keys}).encode())
        halt(project, Version("1.1"))
        assert verify_repository(project).problems == []
