"""The attacks that TUF's specification names (section 1.5.2), each against a whole client, over HTTP.

What an attacker can do here is what somebody can do who holds the server, or the wires, or a stolen key. After each
attack the app is what it was, and the error is of the family that tells what to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import MetaFile, Targets, Timestamp

import instar
from instar.errors import Expired, Unavailable, Untrusted
from instar.model.digest import Digest
from instar.model.version import Version
from instar.policy.select import Reason
from instar.testing.clock import FakeClock
from instar.testing.http import Endless, EndlessHead, Fault, FaultyServer, Trickle
from instar.testing.releases import Bundle, Releases, read_bundle
from instar.testing.repository import TwinRepository, current_key, make_key, restore, saved, swap_target
from instar.trust.layout import METADATA, manifest_path
from instar.trust.roles import Authority

ONE = Bundle({"app": b"#!/bin/sh\necho 1\n", "data": b"1" * 40_000}, executable={"app"})
TWO = Bundle({"app": b"#!/bin/sh\necho 2\n", "data": b"2" * 40_000}, executable={"app"})
EVIL = Bundle({"app": b"#!/bin/sh\nrm -rf /\n"}, executable={"app"})


class Victim:
    """A device with version 1.0, its publisher, and the server between them, which the attacker holds."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.repository = TwinRepository()
        self.storage = self.repository.storage
        self.releases = Releases(self.repository)
        self.releases.release("1.0", ONE)
        self.server = FaultyServer(self.storage)
        self.config = instar.Config("app", self.server.url, self.repository.root, folder / "app", **settings)

    def install(self) -> None:
        instar.first_install(self.config)

    @property
    def tree(self) -> Bundle:
        return read_bundle(self.config.location / "current")

    def look(self) -> instar.Finding:
        return instar.Updater(self.config).look()

    def update(self) -> instar.Update:
        updater = instar.Updater(self.config)
        update = updater.check()
        assert update is not None
        updater.download(update).install()
        return update

    def is_unharmed(self, tree: Bundle = ONE) -> None:
        """Say that the app is the old one, whole, and that honest updates still reach it."""
        assert self.tree == tree
        assert instar.repair(self.config).problems == ()

    def recovers(self) -> None:
        assert self.update() is not None
        assert self.tree == TWO


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Victim]:
    made = Victim(tmp_path)
    with made.server:
        made.install()
        yield made


def spoil(victim: Victim, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Flip the last byte of all objects that are wanted; give the originals."""
    before = {key: data for key, data in saved(victim.storage).items() if wanted(key)}
    assert before
    for key, data in before.items():
        victim.storage.write(key, data[:-1] + bytes([data[-1] ^ 1]))
    return before


@pytest.mark.parametrize("what", ["pack", "manifest", "channels.json"])
def test_arbitrary_software_instead_of_what_was_signed_is_refused(victim: Victim, what: str) -> None:
    known = set(saved(victim.storage))
    victim.releases.release("1.1", TWO, deltas=False)
    before = spoil(victim, lambda key: key.endswith(what) and key not in known)
    with pytest.raises(Untrusted):
        victim.update()
    assert victim.tree == ONE
    for key, data in before.items():
        victim.storage.write(key, data)
    victim.recovers()


def test_arbitrary_software_signed_by_a_stranger_is_refused(victim: Victim) -> None:
    """The attacker has the whole server and keys of his own."""
    stranger = TwinRepository()
    evil = Releases(stranger)
    evil.release("9.9", EVIL)
    genuine = saved(victim.storage)
    restore(victim.storage, saved(stranger.storage))
    with pytest.raises(Untrusted):
        victim.look()
    restore(victim.storage, genuine)
    victim.is_unharmed()


def test_arbitrary_software_signed_by_one_online_key_is_refused(victim: Victim) -> None:
    """The attacker stole the online key: he can offer, but nothing that the owner did not sign."""
    stranger = Releases(TwinRepository())
    stranger.release("9.9", EVIL)
    document = stranger.manifests["9.9"].to_json()

    def add(targets: Targets) -> None:
        swap_target(manifest_path("app", victim.releases.platform, "1.0"), document)(targets)

    victim.repository.forge("app", add, signers=[victim.repository.online], link=True)
    with pytest.raises(Untrusted):
        victim.look()
    assert victim.tree == ONE


def test_a_stolen_online_key_can_only_offer_what_the_owner_signed_once(victim: Victim) -> None:
    victim.releases.release("1.1", TWO)
    victim.update()
    instar.confirm(victim.config)
    # He offers what never was: refused.
    entries = victim.releases.entries["stable"]
    entries["6.6.6"] = replace(entries["1.0"], version=Version("6.6.6"))
    victim.releases.publish_channels()
    with pytest.raises(Untrusted, match=r"No release 6\.6\.6"):
        victim.look()
    # He takes the newer one away, to have devices run the older: they do not go back for that.
    del entries["6.6.6"], entries["1.1"]
    victim.releases.publish_channels()
    assert victim.look() == instar.Finding(Version("1.1"), None, Reason.UP_TO_DATE)
    # He calls it yanked: then the older one is installed, which the owner did sign, unless a floor forbids it.
    victim.releases.offer("stable", "1.1", yanked=True)
    with victim.repository.edit() as roles:
        roles.set_floor("app", "1.1")
    assert victim.look().update is None
    victim.is_unharmed(TWO)


def test_a_stolen_online_key_cannot_set_the_floor(victim: Victim) -> None:
    with victim.repository.edit() as roles:
        roles.set_floor("app", "1.0")

    def lower(targets: Targets) -> None:
        targets.version += 1
        targets.targets["app/security-floor"].unrecognized_fields["custom"] = {"floor": "0.1"}

    victim.repository.forge("app", lower, signers=[victim.repository.online], link=True)
    with pytest.raises(Untrusted):
        victim.look()
    assert victim.tree == ONE


def test_key_compromise_ends_when_the_owner_replaces_the_key(victim: Victim) -> None:
    stolen = victim.repository.online
    fresh = make_key()
    with victim.repository.edit(victim.repository.owner, stolen, fresh) as roles:
        roles.set_keys(Authority.ONLINE, [stolen.public_key, fresh.public_key])
    with victim.repository.edit(victim.repository.owner, fresh) as roles:
        roles.set_keys(Authority.ONLINE, [fresh.public_key])
    victim.look()

    def bump(timestamp: Timestamp) -> None:
        timestamp.version += 1

    genuine = saved(victim.storage)
    victim.repository.forge("timestamp", bump, signers=[stolen])
    with pytest.raises(Untrusted):
        victim.look()
    restore(victim.storage, genuine)
    victim.repository.online = fresh
    victim.releases.release("1.1", TWO)
    victim.recovers()


def test_rollback_to_an_older_repository_is_refused(victim: Victim) -> None:
    old = saved(victim.storage)
    victim.releases.release("1.1", TWO)
    new = saved(victim.storage)
    assert victim.look().update is not None
    restore(victim.storage, old)
    with pytest.raises(Untrusted):
        victim.look()
    restore(victim.storage, new)
    victim.recovers()
    instar.confirm(victim.config)
    restore(victim.storage, old)
    with pytest.raises(Untrusted):
        victim.look()
    victim.config = replace(victim.config)
    assert victim.tree == TWO


def test_rollback_by_a_channel_that_names_only_older_releases_does_not_happen(victim: Victim) -> None:
    """Signed by the real key, at that: an older version needs a signed reason, not just an older list."""
    victim.releases.release("1.1", TWO)
    victim.update()
    instar.confirm(victim.config)
    victim.releases.withdraw("stable", "1.1")
    assert victim.look().update is None
    victim.is_unharmed(TWO)


def test_fast_forward_is_undone_by_replacing_the_stolen_key(victim: Victim) -> None:
    stolen, fresh = victim.repository.online, make_key()
    honest = saved(victim.storage)

    def leap(timestamp: Timestamp) -> None:
        timestamp.version = 2**31 - 1

    victim.repository.forge("timestamp", leap, signers=[stolen])
    victim.look()
    restore(victim.storage, honest)
    with pytest.raises(Untrusted):
        victim.look()  # by version numbers the honest one is older now
    for keys in ([stolen, fresh], [fresh]):
        with victim.repository.edit(victim.repository.owner, stolen, fresh) as roles:
            roles.set_keys(Authority.ONLINE, [key.public_key for key in keys])
    victim.repository.online = fresh
    victim.releases.release("1.1", TWO)
    victim.recovers()


def test_indefinite_freeze_is_noticed_when_the_timestamp_ends(tmp_path: Path) -> None:
    clock = FakeClock(datetime.now(UTC))
    victim = Victim(tmp_path, clock=clock)
    with victim.server:
        victim.install()
        frozen = saved(victim.storage)
        victim.releases.release("1.1", TWO)
        restore(victim.storage, frozen)
        clock.advance(timedelta(days=6))
        assert victim.look().update is None
        clock.advance(timedelta(days=2))
        with pytest.raises(Expired) as caught:
            victim.look()
        assert clock.now() - timedelta(days=2) < caught.value.since < clock.now()
        assert victim.tree == ONE
        # Turning the clock back does not help him: the device knows what time it was.
        clock.set(clock.now() - timedelta(days=5))
        found = instar.status(victim.config)
        assert (found.known_until is None) != (found.expired_since is None)


@pytest.mark.parametrize("fault", [Endless(), EndlessHead(), EndlessHead(interim=True)], ids=str)
@pytest.mark.parametrize("what", ["timestamp.json", "channels.json", ".manifest", ".pack"])
def test_endless_data_ends(victim: Victim, fault: Fault, what: str) -> None:
    known = set(saved(victim.storage))
    victim.releases.release("1.1", TWO, deltas=False)
    keys = [key for key in saved(victim.storage) if key.endswith(what) and (key not in known or "timestamp" in key)]
    assert keys
    for key in keys:
        victim.server.fault(fault, key=key, times=None)
    with pytest.raises((Untrusted, Unavailable)):
        victim.update()
    assert victim.tree == ONE
    assert sum(path.stat().st_size for path in victim.config.location.rglob("*") if path.is_file()) < 1_000_000
    victim.server.heal()
    victim.recovers()


@pytest.mark.parametrize("what", ["timestamp.json", "channels.json", ".manifest", ".pack"])
def test_slow_retrieval_is_given_up(tmp_path: Path, what: str) -> None:
    # Each look at this clock takes three seconds: a trickle of bytes takes hours by it, and moments for this test.
    clock = FakeClock(datetime.now(UTC), step=3)
    victim = Victim(tmp_path)
    with victim.server:
        victim.install()
        known = set(saved(victim.storage))
        victim.releases.release("1.1", TWO, deltas=False)
        keys = [key for key in saved(victim.storage) if key.endswith(what) and (key not in known or "timestamp" in key)]
        for key in keys:
            victim.server.fault(Trickle(count=1, pause=0.002), key=key, times=None)
        victim.config = replace(victim.config, clock=clock)
        with pytest.raises(Unavailable):
            victim.update()
        assert victim.tree == ONE
        victim.server.heal()
        victim.config = replace(victim.config, clock=FakeClock(datetime.now(UTC)))
        victim.recovers()


def test_mix_and_match_of_metadata_from_different_times_is_refused(victim: Victim) -> None:
    """Every file is genuine, but they never stood in the repository together."""
    victim.releases.release("1.1", TWO)
    old = saved(victim.storage)
    victim.releases.release("1.2", EVIL)
    now_key = current_key(victim.storage, "app")
    genuine = saved(victim.storage)
    then_key = max((key for key in old if key.endswith(".app.json")), key=lambda key: int(key[9:].split(".")[0]))
    assert now_key != then_key
    victim.storage.write(now_key, old[then_key])
    with pytest.raises(Untrusted):
        victim.look()
    assert victim.tree == ONE
    restore(victim.storage, genuine)
    assert victim.look().update is not None


def test_mix_and_match_of_timestamp_and_snapshot_is_refused(victim: Victim) -> None:
    victim.releases.release("1.1", TWO)
    victim.look()
    snapshot = json.loads(victim.storage.read(current_key(victim.storage, "snapshot"), limit=100_000))
    older = f"{METADATA}{snapshot['signed']['version'] - 1}.snapshot.json"

    def point_back(timestamp: Timestamp) -> None:
        timestamp.version += 1
        timestamp.snapshot_meta = MetaFile(snapshot["signed"]["version"] - 1)

    assert older in saved(victim.storage)
    victim.repository.forge("timestamp", point_back, signers=[victim.repository.online])
    with pytest.raises(Untrusted):
        victim.look()
    assert victim.tree == ONE


def test_the_wrong_target_another_products_release_is_refused(victim: Victim) -> None:
    """The owner of another product in the same repository signs a release under this product's name."""
    team = make_key()
    with victim.repository.edit(victim.repository.owner, victim.repository.online, team) as roles:
        roles.add_product("other", keys=[team.public_key])

    evil = Releases(TwinRepository())
    document = evil.release("9.9", EVIL).to_json()
    path = manifest_path("app", victim.releases.platform, "9.9")

    def claim(targets: Targets) -> None:
        targets.version += 1
        from tuf.api.metadata import TargetFile

        targets.targets[path] = TargetFile(len(document), {"sha256": Digest.of(document).hex}, path)

    victim.repository.forge("other", claim, signers=[team], link=True)
    victim.releases.entries["stable"]["9.9"] = replace(victim.releases.entries["stable"]["1.0"], version=Version("9.9"))
    victim.releases.publish_channels()
    with pytest.raises(Untrusted, match=r"No release 9\.9"):
        victim.look()
    assert victim.tree == ONE


def test_the_wrong_target_another_platforms_release_is_refused(victim: Victim) -> None:
    other = Releases(victim.repository, platform="other-cpu")
    document = other.release("1.1", EVIL, channel=None).to_json()
    victim.releases.publish_manifest("1.1", document)
    victim.releases.offer("stable", "1.1")
    with pytest.raises(Untrusted, match="for other-cpu"):
        victim.look()
    assert victim.tree == ONE


def test_a_malicious_mirror_is_passed_by(victim: Victim) -> None:
    stranger = TwinRepository()
    Releases(stranger).release("9.9", EVIL)
    victim.releases.release("1.1", TWO)
    with FaultyServer(stranger.storage) as mirror:
        victim.config = replace(victim.config, url=mirror.url, mirrors=(victim.server.url,))
        victim.recovers()
        assert mirror.received  # it was asked


def test_a_malicious_mirror_that_spoils_packs_is_passed_by(victim: Victim) -> None:
    from instar.storage import MemoryStorage

    victim.releases.release("1.1", TWO)
    copy = MemoryStorage()
    for key, data in saved(victim.storage).items():
        copy.write(key, bytes(len(data)) if key.startswith("packs/") else data)
    with FaultyServer(copy) as mirror:
        victim.config = replace(victim.config, url=mirror.url, mirrors=(victim.server.url,))
        victim.recovers()


def test_a_key_that_is_below_the_threshold_signs_nothing(victim: Victim) -> None:
    second = make_key()
    with victim.repository.edit(victim.repository.owner, victim.repository.online, second) as roles:
        roles.set_product_keys("app", [victim.repository.owner.public_key, second.public_key], threshold=2)
    victim.look()
    document = Releases(TwinRepository()).release("9.9", EVIL).to_json()
    change = swap_target(manifest_path("app", victim.releases.platform, "1.0"), document)
    victim.repository.forge("app", change, signers=[second], link=True)
    with pytest.raises(Untrusted):
        victim.look()
    assert victim.tree == ONE
