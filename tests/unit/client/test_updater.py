"""The device's half as a whole, against a really signed repository in memory."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import instar
from instar.client.here import load_config, open_here
from instar.client.updater import Direction, Outcome
from instar.errors import (
    Busy,
    Cancelled,
    Conflict,
    Expired,
    InstallFailed,
    Misconfigured,
    Unavailable,
    Untrusted,
)
from instar.model.channel import Ramp
from instar.model.progress import Phase, Progress
from instar.policy.select import Reason
from instar.storage import MemoryStorage
from instar.testing.clock import FakeClock
from instar.testing.releases import Bundle, Releases, read_bundle
from instar.testing.repository import TwinRepository

BIG = bytes(range(256)) * 400
ONE = Bundle({"app": b"#!/bin/sh\necho 1\n", "lib/big.bin": BIG, "readme": b"one"}, executable={"app"})
TWO = Bundle(
    {"app": b"#!/bin/sh\necho 2\n", "lib/big.bin": BIG[:50_000] + b"new" + BIG[50_000:], "lib/more": b"more"},
    executable={"app"},
    directories={"empty"},
    links={"lib/link": "more"},
)
HEALTHY = ("app", "--version")


class Device:
    """A folder with an installation and the repository it follows."""

    def __init__(self, releases: Releases, location: Path, **settings: Any) -> None:
        self.releases = releases
        self.location = location
        self.config = instar.Config("app", "https://x.example/", releases.repository.root, location, **settings)
        self.storage = releases.repository.storage

    def install(self) -> Device:
        instar.first_install(self.config, reader=self.storage)
        return self

    def updater(self, **changes: Any) -> instar.Updater:
        return instar.Updater(replace(self.config, **changes), reader=self.storage)

    def update(self, **changes: Any) -> instar.Update:
        updater = self.updater(**changes)
        update = updater.check()
        assert update is not None
        updater.download(update).install()
        return update

    @property
    def tree(self) -> Bundle:
        return read_bundle(self.location / "current")

    @property
    def version(self) -> str:
        return str(instar.status(self.config).version)


@pytest.fixture
def releases() -> Releases:
    made = Releases(TwinRepository())
    made.release("1.0", ONE)
    return made


@pytest.fixture
def device(releases: Releases, tmp_path: Path) -> Device:
    return Device(releases, tmp_path / "app").install()


def test_a_first_install_is_the_channels_newest_release_under_current(device: Device) -> None:
    assert device.tree == ONE
    found = instar.status(device.config)
    assert (str(found.version), found.phase, found.channel, found.layout) == ("1.0", "steady", "stable", "versioned")
    assert device.updater().check() is None
    assert device.updater().look() == instar.Finding(instar.Version("1.0"), None, Reason.UP_TO_DATE)


def test_an_update_by_patch_costs_little_and_says_why(device: Device) -> None:
    device.releases.release("1.1", TWO, patched_from="1.0", notes="Better.\n")
    update = device.updater().check()
    assert update is not None
    assert (str(update.version), str(update.current), update.direction) == ("1.1", "1.0", Direction.UP)
    assert (update.notes, update.checkpoint, update.reason) == ("Better.\n", 0, Reason.NEWER)
    assert update.download_size < update.full_size
    assert update.download_by["patches"] < 200
    assert update.made_by["patches"] == len(TWO.files["lib/big.bin"]) + len(TWO.files["app"])
    before = device.tree
    staged = device.updater().download(update)
    assert device.tree == before
    assert staged.install(when="now") is Outcome.SELECTED
    assert device.tree == TWO
    assert instar.status(device.config).phase == "pending"
    instar.confirm(device.config)
    assert instar.status(device.config).phase == "steady"


def test_a_staged_update_waits_for_the_next_start(device: Device) -> None:
    device.releases.release("1.1", TWO)
    updater = device.updater()
    update = updater.check()
    assert update is not None
    assert updater.download(update).install(when="next-start") is Outcome.AT_NEXT_START
    assert device.tree == ONE
    waiting = instar.status(device.config)
    assert (str(waiting.staged), waiting.at_start) == ("1.1", True)
    start = instar.startup(device.config)
    assert (start.restart_needed, str(start.version)) == (True, "1.1")
    assert device.tree == TWO
    start = instar.startup(device.config)
    assert (start.restart_needed, start.pending) == (False, True)


@pytest.mark.parametrize("layout", ["versioned", "in place"])
def test_a_release_with_the_same_content_under_another_number_is_an_update_like_any_other(
    releases: Releases, tmp_path: Path, layout: str
) -> None:
    device = Device(releases, tmp_path / "app")
    if layout == "versioned":
        device.install()
    else:
        for path, data in ONE.files.items():
            (device.location / path).parent.mkdir(parents=True, exist_ok=True)
            (device.location / path).write_bytes(data)
        (device.location / "app").chmod(0o755)
        instar.adopt(device.config, "1.0", reader=device.storage)
    releases.release("1.0.post1", ONE, introduces=1)
    update = device.update()
    assert update.download_size == 0
    assert device.version == "1.0.post1"
    instar.confirm(device.config)
    assert instar.repair(device.config, reader=device.storage).problems == ()
    releases.release("1.1", TWO, requires=1)
    device.update()
    assert device.version == "1.1"
    assert str(instar.rollback(device.config)) == "1.0.post1"


def test_what_is_staged_already_is_not_downloaded_again(device: Device) -> None:
    device.releases.release("1.1", TWO)
    updater = device.updater()
    first = updater.check()
    assert first is not None
    updater.download(first)
    again = updater.check()
    assert again is not None
    assert (again.download_size, again.requests) == (0, 0)
    for item in device.storage.list("packs/"):
        device.storage.delete(item.key)
    device.updater().download(again).install()
    assert device.tree == TWO


def test_what_was_withdrawn_while_it_waited_is_not_installed_at_the_next_start(device: Device) -> None:
    device.releases.release("1.1", TWO)
    updater = device.updater()
    update = updater.check()
    assert update is not None
    staged = updater.download(update)
    staged.install(when="next-start")
    device.releases.offer("stable", "1.1", halted=True)
    assert updater.check() is None
    assert not instar.startup(device.config).restart_needed
    assert device.tree == ONE
    with pytest.raises(Conflict):
        staged.install()


def test_a_version_that_does_not_confirm_is_rolled_back_and_not_offered_again(device: Device) -> None:
    device.releases.release("1.1", TWO)
    device.update()
    starts = [instar.startup(device.config) for _ in range(3)]
    assert [start.restart_needed for start in starts] == [False, False, False]
    last = instar.startup(device.config)
    assert (last.restart_needed, str(last.version)) == (True, "1.0")
    assert device.tree == ONE
    assert device.updater().look().reason is Reason.FAILED_HERE
    failed = instar.status(device.config).failed
    assert [str(failure.version) for failure in failed] == ["1.1"]
    # A newer one may be better.
    device.releases.release("1.2", replace(TWO, files={"a": b"3"}))
    assert str(device.update().version) == "1.2"


def test_an_update_over_an_unconfirmed_version_goes_back_to_the_last_that_worked(device: Device) -> None:
    device.releases.release("1.1", TWO)
    device.update()
    device.releases.release("1.2", replace(TWO, files={"a": b"3"}))
    device.update()
    assert str(instar.rollback(device.config)) == "1.0"
    assert device.tree == ONE


def test_a_version_whose_health_command_fails_is_never_selected(device: Device) -> None:
    device.config = replace(device.config, health=HEALTHY)
    sick = replace(TWO, files={**TWO.files, "app": b"#!/bin/sh\necho broken library; exit 3\n"})
    device.releases.release("1.1", sick)
    updater = device.updater()
    update = updater.check()
    assert update is not None
    staged = updater.download(update)
    with pytest.raises(InstallFailed, match="broken library") as caught:
        staged.install()
    assert caught.value.running == "1.0"
    assert device.tree == ONE
    assert updater.look().reason is Reason.FAILED_HERE
    with pytest.raises(InstallFailed, match="failed on this device"):
        updater.download(update)
    device.releases.release("1.2", TWO)
    assert str(device.update().version) == "1.2"


def test_a_rollout_reaches_the_same_devices_and_more_as_it_grows(releases: Releases, tmp_path: Path) -> None:
    devices = [Device(releases, tmp_path / str(n), device_id=f"device-{n}").install() for n in range(20)]
    releases.release("1.1", TWO, percent=40)
    early = {n for n, device in enumerate(devices) if device.updater().check() is not None}
    assert 0 < len(early) < 20
    releases.offer("stable", "1.1", percent=80)
    late = {n for n, device in enumerate(devices) if device.updater().check() is not None}
    assert early < late
    assert {devices[n].updater().look().reason for n in range(20) if n not in late} == {Reason.NOT_YET}


def test_a_ramp_widens_though_the_channels_file_is_the_same(releases: Releases, tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    clock = FakeClock(now)
    device = Device(releases, tmp_path / "app", clock=clock).install()
    releases.release("1.1", TWO, ramp=Ramp(now + timedelta(hours=1), timedelta(hours=10)))
    assert device.updater().look().reason is Reason.NOT_YET
    clock.advance(timedelta(hours=12))
    assert device.updater().check() is not None


def test_conditions_on_facts_decide(device: Device) -> None:
    device.releases.release("1.1", TWO, conditions={"ring": frozenset({"inner"})})
    assert device.updater().check() is None
    assert device.updater(facts={"ring": "outer"}).check() is None
    assert device.updater(facts={"ring": "inner"}).check() is not None


def test_a_checkpoint_is_not_skipped(device: Device) -> None:
    device.releases.release("2.0", TWO, introduces=1)
    device.releases.release("3.0", replace(TWO, files={"a": b"3"}), requires=1)
    first = device.update()
    assert (str(first.version), first.checkpoint) == ("2.0", 1)
    instar.confirm(device.config)
    assert str(device.update().version) == "3.0"


def test_a_switch_of_channel_may_lead_down_and_is_remembered(device: Device) -> None:
    device.releases.release("2.0b1", TWO, channel="beta")
    assert device.updater().check() is None
    assert str(device.update(channel="beta").version) == "2.0b1"
    instar.confirm(device.config)
    assert instar.status(device.config).channel == "beta"
    assert device.updater().check() is None  # nobody asked to go back
    down = device.update(channel="stable")
    assert (str(down.version), down.direction, down.reason) == ("1.0", Direction.DOWN, Reason.CHANNEL_SWITCH)
    assert device.tree == ONE
    assert instar.status(device.config).channel == "stable"


def test_a_switch_to_a_channel_with_the_same_release_is_remembered_at_once(device: Device) -> None:
    device.releases.offer("beta", "1.0")
    assert device.updater(channel="beta").check() is None
    assert instar.status(device.config).channel == "beta"


def test_a_switch_is_remembered_when_the_other_channel_has_something_newer_for_later(device: Device) -> None:
    device.releases.release("1.1", TWO, channel="beta", percent=0)
    assert device.updater(channel="beta").look().reason is Reason.NOT_YET
    assert instar.status(device.config).channel == "beta"
    device.releases.offer("beta", "1.1", percent=100)
    assert str(device.update().version) == "1.1"


def test_a_switch_down_that_must_wait_is_not_forgotten(device: Device) -> None:
    device.releases.release("2.0b1", TWO, channel="beta")
    device.update(channel="beta")
    instar.confirm(device.config)
    device.releases.offer("stable", "1.0", percent=0)
    assert device.updater(channel="stable").check() is None
    assert instar.status(device.config).channel == "beta"
    device.releases.offer("stable", "1.0", percent=100)
    assert str(device.update(channel="stable").version) == "1.0"


def test_a_switch_down_that_was_downloaded_and_never_installed_is_not_forgotten(device: Device) -> None:
    device.releases.release("2.0b1", TWO, channel="beta")
    device.update(channel="beta")
    instar.confirm(device.config)
    updater = device.updater(channel="stable")
    found = updater.check()
    assert found is not None
    updater.download(found)
    # Here the power fails, or the app asks its user, who wants to wait until tomorrow.
    assert instar.status(device.config).channel == "beta"
    down = device.update(channel="stable")
    assert (str(down.version), down.download_size) == ("1.0", 0)
    assert instar.status(device.config).channel == "stable"


def test_a_switch_of_channel_by_another_process_is_seen_by_an_updater_that_lives_on(device: Device) -> None:
    device.releases.release("2.0b1", TWO, channel="beta")
    device.releases.release("2.0b2", TWO, channel="beta")
    updater = device.updater()
    assert updater.check() is None
    device.update(channel="beta")
    instar.confirm(device.config)
    device.releases.release("1.5", ONE)
    assert updater.look().reason is Reason.UP_TO_DATE
    assert instar.status(device.config).channel == "beta"
    device.releases.release("3.0", ONE)
    assert updater.check() is None  # stable has it, and stable is not followed any more


def test_a_yanked_release_is_left_for_an_older_one(device: Device) -> None:
    device.releases.release("1.1", TWO)
    device.update()
    instar.confirm(device.config)
    device.releases.offer("stable", "1.1", yanked=True)
    down = device.update()
    assert (str(down.version), down.direction, down.reason) == ("1.0", Direction.DOWN, Reason.YANKED)
    assert device.tree == ONE


def test_users_files_are_kept_and_stale_files_are_not(releases: Releases, tmp_path: Path) -> None:
    device = Device(releases, tmp_path / "app", keep=("data/*",)).install()
    data = device.location / "current/data"
    data.mkdir()
    (data / "mine.txt").write_text("mine")
    releases.release("1.1", TWO)
    device.update()
    assert (device.location / "current/data/mine.txt").read_text() == "mine"
    assert not (device.location / "current/readme").exists()


def test_a_file_changed_by_hand_does_not_get_into_the_next_version(device: Device) -> None:
    device.releases.release("1.1", TWO, patched_from="1.0")
    big = device.location / "current/lib/big.bin"
    big.write_bytes(BIG[:-1] + b"!")  # the same length: only reading finds it
    device.update()
    assert device.tree == TWO


def test_repair_downloads_only_what_is_damaged(device: Device) -> None:
    current = device.location / "current"
    (current / "lib/big.bin").write_bytes(BIG[:-1] + b"!")
    (current / "readme").unlink()
    (current / "app").chmod(0o644)
    (current / "stray").write_text("stray")
    repaired = instar.repair(device.config, reader=device.storage)
    assert {(problem.path, problem.difference.name) for problem in repaired.problems} == {
        ("app", "CHANGED"),
        ("lib/big.bin", "CHANGED"),
        ("readme", "MISSING"),
        ("stray", "EXTRA"),
    }
    assert device.tree == ONE
    full = sum(pack.size for pack in device.releases.manifests["1.0"].packs)
    assert 0 < repaired.downloaded <= full
    assert instar.repair(device.config, reader=device.storage).problems == ()
    (current / "readme").write_bytes(b"two")
    assert 0 < instar.repair(device.config, reader=device.storage).downloaded < 50
    assert device.tree == ONE


def test_repair_uses_what_is_whole_elsewhere_in_the_app(releases: Releases, tmp_path: Path) -> None:
    releases.release("1.1", Bundle({"a": BIG, "b": BIG, "c": b"c"}))
    device = Device(releases, tmp_path / "app").install()
    (device.location / "current/b").write_bytes(b"damaged")
    assert instar.repair(device.config, reader=device.storage).downloaded == 0
    assert (device.location / "current/b").read_bytes() == BIG


def test_manifests_of_what_is_gone_are_not_kept(device: Device) -> None:
    for number in range(1, 5):
        device.releases.release(f"1.{number}", replace(TWO, files={"a": str(number).encode()}))
        device.update()
        instar.confirm(device.config)
    assert len(list((device.location / ".instar/client/manifests").iterdir())) <= 3


def test_what_is_whole_needs_no_repository_to_be_seen_so(device: Device) -> None:
    repaired = instar.repair(device.config, reader=MemoryStorage())
    assert (repaired.problems, repaired.downloaded) == ((), 0)
    (device.location / "current/readme").unlink()
    with pytest.raises(Unavailable):
        instar.repair(device.config, reader=MemoryStorage())


def test_repair_of_links_and_empty_folders(device: Device) -> None:
    device.releases.release("1.1", TWO)
    device.update()
    current = device.location / "current"
    (current / "lib/link").unlink()
    (current / "lib/link").write_text("a file")
    (current / "empty").rmdir()
    (current / "lib/more").unlink()
    (current / "lib/more").mkdir()
    (current / "lib/more/inner").write_text("in the way")
    instar.repair(device.config, reader=device.storage)
    assert device.tree == TWO


def test_kept_files_are_no_damage(releases: Releases, tmp_path: Path) -> None:
    device = Device(releases, tmp_path / "app", keep=("readme", "data/*")).install()
    current = device.location / "current"
    (current / "readme").write_text("my own words")
    (current / "data").mkdir()
    (current / "data/x").write_text("x")
    assert instar.repair(device.config, reader=device.storage).problems == ()
    (current / "readme").unlink()
    assert len(instar.repair(device.config, reader=device.storage).problems) == 1
    assert (current / "readme").read_bytes() == b"one"


def test_a_dead_server_breaks_nothing_and_status_says_so(device: Device) -> None:
    nobody = instar.Updater(device.config, reader=MemoryStorage())
    with pytest.raises(Unavailable):
        nobody.check()
    found = instar.status(device.config)
    assert str(found.version) == "1.0"
    assert found.contact is not None
    assert found.contact.problem is not None
    assert found.known_until is not None
    assert found.known_until > datetime.now(UTC)
    assert not instar.startup(device.config).restart_needed


def test_status_knows_what_was_offered_when_the_server_still_answered(releases: Releases, tmp_path: Path) -> None:
    device = Device(releases, tmp_path / "app").install()
    releases.release("1.1", TWO)
    device.updater().check()
    assert str(instar.status(device.config).offered) == "1.1"
    found = instar.status(device.config)
    assert found.contact is not None
    assert found.contact.problem is None


def test_expired_metadata_stops_updates_and_says_since_when(releases: Releases, tmp_path: Path) -> None:
    clock = FakeClock(datetime.now(UTC))
    device = Device(releases, tmp_path / "app", clock=clock).install()
    clock.advance(timedelta(days=8))  # the timestamp lives for seven days
    with pytest.raises(Expired) as caught:
        device.updater().check()
    assert timedelta(0) < clock.now() - caught.value.since < timedelta(days=2)
    assert f"{caught.value.since:%Y-%m-%d}" in str(caught.value)
    found = instar.status(device.config)
    assert found.expired_since == caught.value.since
    assert device.tree == ONE
    assert not instar.startup(device.config).restart_needed
    with releases.repository.edit(now=clock.now()) as roles:
        roles.renew(clock.now(), [releases.repository.owner, releases.repository.online])
    # The publisher woke up.
    assert device.updater().check() is None


def test_a_clock_in_1970_updates(releases: Releases, tmp_path: Path) -> None:
    clock = FakeClock(datetime(1970, 1, 1, tzinfo=UTC))
    device = Device(releases, tmp_path / "app", clock=clock, build_time=datetime(2026, 1, 1, tzinfo=UTC)).install()
    releases.release("1.1", TWO)
    device.update()
    assert device.tree == TWO
    instar.confirm(device.config)


def test_no_room_is_said_before_anything_is_downloaded(device: Device) -> None:
    device.releases.release("1.1", TWO)
    update = device.updater().check()
    assert update is not None
    poor = instar.Updater(device.config, reader=device.storage, free_space=lambda _: 10_000)
    with pytest.raises(InstallFailed, match="not enough room") as caught:
        poor.download(update)
    assert caught.value.running == "1.0"
    assert "Free at least 0." in str(caught.value)
    assert not (device.location / ".instar/downloads").exists()
    device.updater().download(update).install()
    assert device.tree == TWO


def test_what_a_killed_update_left_is_removed_before_room_is_said_to_be_missing(device: Device) -> None:
    device.releases.release("1.1", TWO)
    update = device.updater().check()
    assert update is not None
    left = device.location / ".instar/staging/tree-0123456789abcdef"
    left.mkdir(parents=True, exist_ok=True)
    (left / "half").write_bytes(b"half of a release")
    tight = instar.Updater(
        device.config, reader=device.storage, free_space=lambda _: 10_000 if left.exists() else 10_000_000
    )
    tight.download(update).install()
    assert device.tree == TWO


def test_progress_is_told_and_cancelling_keeps_what_came(device: Device) -> None:
    device.releases.release("1.1", TWO)
    updater = device.updater()
    update = updater.check()
    assert update is not None
    seen: list[Progress] = []
    with pytest.raises(Cancelled):
        updater.download(update, cancelled=lambda: True)
    staged = updater.download(update, progress=seen.append)
    assert {progress.phase for progress in seen} == {Phase.DOWNLOAD, Phase.REBUILD}
    assert all(0 <= progress.done <= progress.total for progress in seen)
    staged.install()
    assert device.tree == TWO


def test_an_update_that_was_found_before_the_installation_changed_is_refused(device: Device) -> None:
    device.releases.release("1.1", TWO)
    old = device.updater().check()
    device.releases.release("1.2", replace(TWO, files={"a": b"3"}))
    device.update()
    assert old is not None
    with pytest.raises(Conflict, match="Check again"):
        device.updater().download(old)
    assert device.version == "1.2"


def test_an_install_is_refused_once_something_else_is_staged(device: Device) -> None:
    device.releases.release("1.1", TWO)
    updater = device.updater()
    update = updater.check()
    assert update is not None
    first = updater.download(update)
    device.releases.release("1.2", replace(TWO, files={"a": b"3"}))
    newer = updater.check()
    assert newer is not None
    updater.download(newer)
    with pytest.raises(Conflict):
        first.install()
    with pytest.raises(Misconfigured):
        first.install(when="later")  # type: ignore[arg-type]


def test_one_works_and_the_others_are_told_that_it_is_busy(device: Device) -> None:
    device.releases.release("1.1", TWO)
    updater = device.updater()
    update = updater.check()
    assert update is not None
    entered, leave = threading.Event(), threading.Event()

    def hold(_: Progress) -> None:
        entered.set()
        leave.wait(30)

    worker = threading.Thread(target=lambda: updater.download(update, progress=hold))
    worker.start()
    assert entered.wait(30)
    try:
        with pytest.raises(Busy):
            device.updater().check()
        # An app may come up and say so while another process downloads.
        assert not instar.startup(device.config).restart_needed
        instar.confirm(device.config)
        assert str(instar.status(device.config).version) == "1.0"
    finally:
        leave.set()
        worker.join()


def test_an_existing_app_is_adopted_in_its_place_and_updated_there(releases: Releases, tmp_path: Path) -> None:
    location = tmp_path / "myapp"
    for path, data in ONE.files.items():
        (location / path).parent.mkdir(parents=True, exist_ok=True)
        (location / path).write_bytes(data)
    (location / "app").chmod(0o755)
    (location / "readme").write_text("edited")
    config = instar.Config("app", "https://x.example/", releases.repository.root, location)
    adopted = instar.adopt(config, "1.0", reader=releases.repository.storage)
    assert [(problem.path, problem.difference.name) for problem in adopted.differences] == [("readme", "CHANGED")]
    assert (location / "readme").read_text() == "edited"
    with pytest.raises(Misconfigured, match="already"):
        instar.adopt(config, "1.0", reader=releases.repository.storage)
    releases.release("1.1", TWO, patched_from="1.0")
    updater = instar.Updater(config, reader=releases.repository.storage)
    update = updater.check()
    assert update is not None
    assert update.download_size < update.full_size
    updater.download(update).install()
    assert read_bundle(location) == TWO
    instar.rollback(config)
    assert (location / "readme").read_text() == "edited"


def test_a_version_that_was_never_signed_is_not_adopted_and_leaves_nothing(releases: Releases, tmp_path: Path) -> None:
    location = tmp_path / "myapp"
    location.mkdir()
    (location / "app").write_text("x")
    config = instar.Config("app", "https://x.example/", releases.repository.root, location)
    with pytest.raises(Untrusted):
        instar.adopt(config, "0.9", reader=releases.repository.storage)
    with pytest.raises(Misconfigured):
        instar.adopt(config, "not a version", reader=releases.repository.storage)
    with pytest.raises(Misconfigured, match="There is no app"):
        instar.adopt(replace(config, location=tmp_path / "nowhere"), "1.0", reader=releases.repository.storage)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["myapp"]


def test_a_first_install_into_somebody_elses_folder_is_refused(releases: Releases, tmp_path: Path) -> None:
    location = tmp_path / "home"
    location.mkdir()
    (location / "thesis.tex").write_text("years of work")
    with pytest.raises(Misconfigured, match="not empty"):
        Device(releases, location).install()
    assert sorted(path.name for path in location.iterdir()) == ["thesis.tex"]


def test_a_second_install_is_refused(device: Device) -> None:
    with pytest.raises(Misconfigured, match="already"):
        device.install()


def test_an_install_that_could_not_reach_the_repository_is_repeated(releases: Releases, tmp_path: Path) -> None:
    device = Device(releases, tmp_path / "app")
    with pytest.raises(Unavailable):
        instar.first_install(device.config, reader=MemoryStorage())
    device.install()
    assert device.tree == ONE


def test_an_empty_channel_installs_nothing_and_says_why(releases: Releases, tmp_path: Path) -> None:
    device = Device(releases, tmp_path / "app", channel="nightly")
    with pytest.raises(Misconfigured, match="no release for this platform"):
        device.install()


def test_what_was_kept_makes_the_same_configuration(releases: Releases, tmp_path: Path) -> None:
    device = Device(
        releases,
        tmp_path / "app",
        mirrors=("https://y.example/",),
        facts={"ring": "inner"},
        keep=("data/*",),
        health=HEALTHY,
        max_starts=5,
        device_id="me",
        connection=instar.Connection(headers={"X-Token": "secret"}, insecure_http=True),
    ).install()
    loaded = load_config(device.location, clock=device.config.clock, environment=device.config.environment)
    assert replace(loaded, location=device.location) == device.config
    assert (device.location / ".instar/client/connection.json").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Misconfigured, match="There is no installation"):
        load_config(tmp_path / "elsewhere")


def test_a_damaged_trust_is_said(device: Device) -> None:
    (device.location / ".instar/client/root.json").unlink()
    with pytest.raises(Misconfigured, match="whom it trusts"):
        load_config(device.location)


def test_an_installation_of_another_product_is_not_touched(device: Device) -> None:
    with pytest.raises(Misconfigured, match="holds app"):
        device.updater(product="other")
    with pytest.raises(Misconfigured, match="holds app"):
        device.updater(platform="other")
    start = instar.startup(replace(device.config, product="other"))
    assert not start.restart_needed
    assert start.problem is not None


def test_an_app_that_runs_from_its_sources_just_runs(releases: Releases, tmp_path: Path) -> None:
    config = Device(releases, tmp_path / "src").config
    start = instar.startup(config)
    assert (start.restart_needed, start.version) == (False, None)
    assert "no installation" in str(start.problem)


def test_an_installation_is_found_from_any_program_in_it(device: Device, tmp_path: Path) -> None:
    real = device.location.resolve()
    assert instar.find_installation(device.location / "current/app") == real
    assert instar.find_installation(device.location / "current/lib/big.bin") == real
    (tmp_path / "other").mkdir()
    assert instar.find_installation(tmp_path / "other/program") == (tmp_path / "other").resolve()


def test_a_folder_whose_name_is_as_long_as_names_can_be_is_looked_into_like_any_other(tmp_path: Path) -> None:
    # There is no room for the name of a state folder beside it.
    folder = tmp_path / ("x" * 255)
    folder.mkdir()
    assert instar.find_installation(folder / "app") == folder
    with pytest.raises(Misconfigured, match="no installation"):
        load_config(folder)


def test_uninstalling_waits_for_a_download_to_end(device: Device) -> None:
    with open_here(device.config).working(), pytest.raises(Busy):
        instar.uninstall(device.config)
    assert device.tree == ONE
    instar.uninstall(device.config)
    assert not device.location.exists()


def test_an_updater_that_outlives_its_installation_leaves_nothing_behind(device: Device) -> None:
    updater = device.updater()
    instar.uninstall(device.config)
    with pytest.raises(Misconfigured, match="no installation"):
        updater.check()
    assert not device.location.exists()


def test_uninstalling_leaves_nothing_but_what_is_asked_for(releases: Releases, tmp_path: Path) -> None:
    device = Device(releases, tmp_path / "app", keep=("data/*",)).install()
    (device.location / "current/data").mkdir()
    (device.location / "current/data/mine").write_text("mine")
    left = instar.uninstall(device.config, keep_user_files=True)
    assert [path.read_text() for path in left] == ["mine"]
    other = Device(releases, tmp_path / "other").install()
    assert instar.uninstall(other.config) == ()
    assert not any(other.location.rglob("*")) if other.location.exists() else True


def test_rolling_back_without_anything_to_go_back_to_is_refused(device: Device) -> None:
    with pytest.raises(Misconfigured):
        instar.rollback(device.config)
    assert device.tree == ONE


def test_what_the_app_says_about_itself_is_put_on_record_with_the_next_update(device: Device) -> None:
    device.releases.release("1.1", TWO)
    device.update(keep=("notes/*",), max_starts=7)
    assert load_config(device.location).keep == ("notes/*",)
    assert instar.status(device.config).max_starts == 7
