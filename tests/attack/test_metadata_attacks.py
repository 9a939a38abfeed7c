"""What somebody can do who holds the storage, the network, or a key: each TUF attack by its name."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from instar.errors import Expired, InstarError, Unavailable, Untrusted
from instar.model.digest import Digest
from instar.storage import HttpOptions, HttpReader
from instar.testing.clock import FakeClock
from instar.testing.http import CloseEarly, Endless, FaultyServer, Status, Trickle, WrongBytes
from instar.testing.repository import TwinRepository, current_key, make_key, restore, saved, swap_target
from instar.trust.layout import Fetch
from instar.trust.roles import Authority, RoleSet
from instar.trust.verify import TrustedMetadata

NOW = datetime.now(UTC).replace(microsecond=0)
MANIFEST = "app/linux-x86_64-1.0.manifest"
CHANNELS = "app/channels.json"
Forged = Any
"""tuf's ``Signed``, whichever role it is: what attackers change has no type."""


@pytest.fixture
def twin() -> TwinRepository:
    twin = TwinRepository(now=NOW)
    twin.put(MANIFEST, b"the owner's")
    twin.put(CHANNELS, b"{}")
    return twin


@pytest.fixture
def device(twin: TwinRepository, tmp_path: Path) -> TrustedMetadata:
    """One that was there before the attack."""
    device = make_device(twin, tmp_path)
    look(device)
    return device


def make_device(
    twin: TwinRepository, folder: Path, *, fetch: Fetch | None = None, clock: FakeClock | None = None
) -> TrustedMetadata:
    return TrustedMetadata(folder, root=twin.root, fetch=fetch or twin.fetch, clock=clock or FakeClock(NOW))


def look(device: TrustedMetadata) -> dict[str, bytes | None]:
    device.refresh()
    found = {path: device.target(path) for path in (MANIFEST, CHANNELS)}
    return {path: None if target is None else target.digest.raw for path, target in found.items()}


def bump(signed: Forged) -> None:
    signed.version += 1


def leave(signed: Forged) -> None:
    """Change nothing but the signatures."""


# Arbitrary software


@pytest.mark.parametrize("link", [False, True], ids=["with-nothing", "with-the-online-key"])
def test_arbitrary_software_signed_by_a_stranger(twin: TwinRepository, device: TrustedMetadata, *, link: bool) -> None:
    twin.forge("app", swap_target(MANIFEST, b"evil"), signers=[make_key()], link=link)
    if link:
        with pytest.raises(Untrusted):
            look(device)
    else:
        assert look(device)[MANIFEST] == Digest.of(b"the owner's").raw


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "app", "app-channels"])
def test_arbitrary_metadata_in_the_place_of_the_real(twin: TwinRepository, tmp_path: Path, role: str) -> None:
    twin.forge(role, leave, signers=[make_key()])
    with pytest.raises(Untrusted):
        look(make_device(twin, tmp_path))


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "app", "app-channels"])
def test_metadata_without_signatures(twin: TwinRepository, tmp_path: Path, role: str) -> None:
    twin.forge(role, leave, signers=[])
    with pytest.raises(Untrusted):
        look(make_device(twin, tmp_path))


def test_a_signature_is_of_these_bytes_and_no_others(twin: TwinRepository, tmp_path: Path) -> None:
    key = current_key(twin.storage, "app")
    changed = twin.fetch(key, 100_000).replace(Digest.of(b"the owner's").hex.encode(), Digest.of(b"evil").hex.encode())
    twin.storage.write(key, changed)
    with pytest.raises(Untrusted):
        look(make_device(twin, tmp_path))


# Rollback


def test_rollback_to_an_older_repository(twin: TwinRepository, device: TrustedMetadata) -> None:
    before = saved(twin.storage)
    twin.put(CHANNELS, b"newer")
    look(device)
    restore(twin.storage, before)
    with pytest.raises(Untrusted):
        look(device)


@pytest.mark.parametrize("role", ["targets", "app", "app-channels"])
def test_rollback_of_one_role_with_the_online_key(twin: TwinRepository, device: TrustedMetadata, role: str) -> None:
    with twin.edit() as roles:
        roles.add_product("other")
    twin.put(MANIFEST, b"newer")
    twin.put(CHANNELS, b"newer")
    look(device)

    def name_older(snapshot: Forged) -> None:
        snapshot.version += 1
        snapshot.meta[f"{role}.json"].version -= 1

    twin.forge("snapshot", name_older, signers=[twin.online], link=True)
    with pytest.raises(Untrusted):
        look(device)


def test_rollback_of_the_snapshot_in_the_timestamp(twin: TwinRepository, device: TrustedMetadata) -> None:
    def name_older(timestamp: Forged) -> None:
        timestamp.version += 1
        timestamp.snapshot_meta.version -= 1

    twin.forge("timestamp", name_older, signers=[twin.online])
    with pytest.raises(Untrusted):
        look(device)


def test_a_role_cannot_be_made_to_vanish(twin: TwinRepository, device: TrustedMetadata) -> None:
    def forget(snapshot: Forged) -> None:
        snapshot.version += 1
        del snapshot.meta["app.json"]

    twin.forge("snapshot", forget, signers=[twin.online], link=True)
    with pytest.raises(Untrusted):
        look(device)


# Fast-forward


def test_fast_forward_is_undone_by_new_online_keys(twin: TwinRepository, device: TrustedMetadata) -> None:
    def far_ahead(signed: Forged) -> None:
        signed.version = 2**40

    honest = saved(twin.storage)
    twin.forge("snapshot", far_ahead, signers=[twin.online], link=True)
    twin.forge("timestamp", far_ahead, signers=[twin.online])
    look(device)
    restore(twin.storage, honest)
    with pytest.raises(Untrusted):
        look(device)
    thief, fresh = twin.online, make_key()
    for keys in ([thief, fresh], [fresh]):
        with twin.edit(twin.owner, fresh) as roles:
            roles.set_keys(Authority.ONLINE, [key.public_key for key in keys])
    twin.online = fresh
    assert look(device)[MANIFEST] == Digest.of(b"the owner's").raw
    versions = json.loads(twin.fetch("metadata/timestamp.json", 10_000))["signed"]["version"]
    assert versions < 100


# Freeze


def test_freeze_ends_when_the_timestamp_does(twin: TwinRepository, tmp_path: Path) -> None:
    clock = FakeClock(NOW)
    frozen = saved(twin.storage)
    device = make_device(twin, tmp_path, clock=clock, fetch=lambda key, limit: read(frozen, key, limit))
    twin.put(CHANNELS, b"a security fix")
    clock.set(NOW + timedelta(days=7) - timedelta(seconds=1))
    look(device)
    clock.set(NOW + timedelta(days=7))
    with pytest.raises(Expired) as caught:
        look(device)
    assert caught.value.since == NOW + timedelta(days=7)


def test_freeze_with_a_clock_that_was_reset(twin: TwinRepository, tmp_path: Path) -> None:
    """The device had seen day 20; then its battery died, and the attacker serves what was valid on day 3."""
    frozen = saved(twin.storage)
    with twin.edit(now=NOW + timedelta(days=20)) as roles:
        roles.renew(NOW + timedelta(days=20), [twin.online])
        roles.set_target(CHANNELS, size=2, digest=Digest.of(b"{}"))
    clock = FakeClock(NOW + timedelta(days=20))
    look(make_device(twin, tmp_path, clock=clock))
    clock.set(datetime(1970, 1, 1, tzinfo=UTC))
    for path in tmp_path.glob("*.json"):
        path.unlink()  # even if the cache is lost, but for the time
    restore(twin.storage, frozen)
    with pytest.raises(Expired):
        look(make_device(twin, tmp_path, clock=clock))


# Endless data, slow retrieval, broken connections: through the real reader


def over_http(twin: TwinRepository, folder: Path, server: FaultyServer) -> TrustedMetadata:
    options = HttpOptions(attempts=1, deadline=1.0, silence_timeout=0.5, speed_window=0.3)
    reader = HttpReader(server.url, options)
    return make_device(twin, folder, fetch=lambda key, limit: reader.read(key, limit=limit))


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "app-channels"])
@pytest.mark.parametrize(
    ("fault", "family"),
    [
        (Endless(), Untrusted),
        (Trickle(), Unavailable),
        (CloseEarly(after=40), Unavailable),
        (Status(500), Unavailable),
        (Status(404), Unavailable),
        (WrongBytes(at=60), Untrusted),
    ],
    ids=lambda value: value.__class__.__name__ if not isinstance(value, type) else "",
)
def test_a_server_that_misbehaves(
    twin: TwinRepository, tmp_path: Path, role: str, fault: Any, family: type[InstarError]
) -> None:
    with FaultyServer(twin.storage) as server:
        server.fault(fault, times=None, key=current_key(twin.storage, role))
        device = over_http(twin, tmp_path, server)
        with pytest.raises(family):
            look(device)
        server.heal()
        assert look(device)[MANIFEST] == Digest.of(b"the owner's").raw


def test_a_server_that_is_not_there(twin: TwinRepository, tmp_path: Path) -> None:
    with FaultyServer(twin.storage) as server:
        device = over_http(twin, tmp_path, server)
    with pytest.raises(Unavailable):
        look(device)


# Mix and match


def test_mix_and_match_of_an_old_role_with_a_new_snapshot(twin: TwinRepository, tmp_path: Path) -> None:
    old = twin.fetch(current_key(twin.storage, "app"), 100_000)
    twin.put(MANIFEST, b"newer")
    twin.storage.write(current_key(twin.storage, "app"), old)
    with pytest.raises(Untrusted):
        look(make_device(twin, tmp_path))


def test_mix_and_match_of_an_old_snapshot_with_a_new_timestamp(twin: TwinRepository, tmp_path: Path) -> None:
    old = twin.fetch(current_key(twin.storage, "snapshot"), 100_000)
    twin.put(MANIFEST, b"newer")
    twin.storage.write(current_key(twin.storage, "snapshot"), old)
    with pytest.raises(Untrusted):
        look(make_device(twin, tmp_path))


def test_a_client_that_reads_while_somebody_publishes_sees_one_state(twin: TwinRepository, tmp_path: Path) -> None:
    """Consistent snapshots: what the timestamp leads to stays where it is."""

    def fetch(key: str, limit: int) -> bytes:
        data = twin.fetch(key, limit)
        if key == "metadata/timestamp.json":
            twin.put(MANIFEST, b"newer")
            twin.put(CHANNELS, b"newer")
        return data

    found = look(make_device(twin, tmp_path, fetch=fetch))
    assert found == {MANIFEST: Digest.of(b"the owner's").raw, CHANNELS: Digest.of(b"{}").raw}


# One role in the place of another


@pytest.mark.parametrize(("real", "fake"), [("app", "app-channels"), ("app-channels", "app"), ("app", "targets")])
def test_a_role_cannot_play_another(twin: TwinRepository, tmp_path: Path, real: str, fake: str) -> None:
    twin.storage.write(current_key(twin.storage, real), twin.fetch(current_key(twin.storage, fake), 100_000))
    with pytest.raises(Untrusted):
        look(make_device(twin, tmp_path))


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_type_cannot_play_another(twin: TwinRepository, tmp_path: Path, role: str) -> None:
    other = "snapshot" if role == "timestamp" else "timestamp"
    twin.storage.write(current_key(twin.storage, role), twin.fetch(current_key(twin.storage, other), 100_000))
    with pytest.raises(Untrusted):
        look(make_device(twin, tmp_path))


# Key compromise


def test_a_stolen_online_key_cannot_sign_software(twin: TwinRepository, device: TrustedMetadata) -> None:
    twin.forge("app", swap_target(MANIFEST, b"evil"), signers=[twin.online], link=True)
    with pytest.raises(Untrusted):
        look(device)


def test_a_stolen_online_key_cannot_name_software_in_the_channels_role(
    twin: TwinRepository, device: TrustedMetadata
) -> None:
    """The owner delegated one path to it, and a search for a manifest never asks that role."""
    evil = "app/linux-x86_64-6.6.6.manifest"

    def name_it(targets: Forged) -> None:
        targets.version += 1
        targets.targets[evil] = targets.targets[CHANNELS]
        targets.targets[MANIFEST] = targets.targets[CHANNELS]
        targets.targets["app/security-floor"] = targets.targets[CHANNELS]

    twin.forge("app-channels", name_it, signers=[twin.online], link=True)
    assert look(device)[MANIFEST] == Digest.of(b"the owner's").raw
    assert device.target(evil) is None
    assert device.target("app/security-floor") is None


def test_a_stolen_online_key_cannot_change_who_signs(twin: TwinRepository, device: TrustedMetadata) -> None:
    def take_over(targets: Forged) -> None:
        targets.version += 1
        targets.delegations.roles["app"].keyids = [twin.online.public_key.keyid]

    twin.forge("targets", take_over, signers=[twin.online], link=True)
    with pytest.raises(Untrusted):
        look(device)


def test_the_keys_of_one_product_do_not_sign_another(twin: TwinRepository, device: TrustedMetadata) -> None:
    team = make_key()
    with twin.edit(twin.owner, twin.online, team) as roles:
        roles.add_product("tool", keys=[team.public_key])

    def reach_over(targets: Forged) -> None:
        targets.version += 1
        evil = Digest.of(b"evil")
        twin_target = RoleSet.load(twin.fetch, root=twin.root).target(MANIFEST)
        assert twin_target is not None
        from tuf.api.metadata import TargetFile

        for path in (MANIFEST, "app/linux-x86_64-6.6.6.manifest"):
            targets.targets[path] = TargetFile(4, {"sha256": evil.hex}, path)

    twin.forge("tool", reach_over, signers=[team], link=True)
    assert look(device)[MANIFEST] == Digest.of(b"the owner's").raw
    assert device.target("app/linux-x86_64-6.6.6.manifest") is None


def test_a_key_that_was_replaced_is_worth_nothing(twin: TwinRepository, device: TrustedMetadata) -> None:
    stolen, fresh = twin.online, make_key()
    for keys in ([stolen, fresh], [fresh]):
        with twin.edit(twin.owner, fresh) as roles:
            roles.set_keys(Authority.ONLINE, [key.public_key for key in keys])
    look(device)
    twin.forge("timestamp", bump, signers=[stolen])
    with pytest.raises(Untrusted):
        look(device)


# Root


@pytest.fixture
def next_root(twin: TwinRepository) -> tuple[CryptoSigner, Callable[[list[CryptoSigner]], None]]:
    """A new owner's key, and a way to serve the root that brings it, signed by whom one wants."""
    new = make_key()

    def change(root: Forged) -> None:
        root.version += 1
        root.add_key(new.public_key, "root")
        root.revoke_key(twin.owner.public_key.keyid, "root")

    return new, lambda signers: twin.forge("root", change, signers=signers)


def test_a_root_signed_by_old_and_new_is_followed(
    twin: TwinRepository, device: TrustedMetadata, next_root: Any, tmp_path: Path
) -> None:
    new, serve = next_root
    serve([twin.owner, new])
    look(device)
    assert json.loads((tmp_path / "root.json").read_bytes())["signed"]["version"] == 2


@pytest.mark.parametrize("who", ["old", "new", "stranger", "nobody"])
def test_a_root_that_lacks_a_signature_is_not_followed(
    twin: TwinRepository, device: TrustedMetadata, next_root: Any, tmp_path: Path, who: str
) -> None:
    new, serve = next_root
    serve({"old": [twin.owner], "new": [new], "stranger": [make_key()], "nobody": []}[who])
    with pytest.raises(Untrusted):
        look(device)
    assert json.loads((tmp_path / "root.json").read_bytes())["signed"]["version"] == 1


@pytest.mark.parametrize("version", [1, 3, 0, -1])
def test_a_root_with_another_number_than_the_next_is_not_followed(
    twin: TwinRepository, device: TrustedMetadata, version: int
) -> None:
    def renumber(root: dict[str, Any]) -> None:
        root["version"] = version

    document = json.loads(twin.root)
    renumber(document["signed"])
    twin.storage.write("metadata/2.root.json", json.dumps(document).encode())
    with pytest.raises(Untrusted):
        look(device)


def test_a_cache_cannot_lower_trust_below_the_apps_own_root(twin: TwinRepository, tmp_path: Path) -> None:
    """Someone put another repository's metadata into the cache."""
    other = TwinRepository(now=NOW)
    look_at = make_device(other, tmp_path)
    look_at.refresh()
    look(make_device(twin, tmp_path))
    with pytest.raises(Untrusted):
        make_device(twin, tmp_path, fetch=other.fetch).refresh()


def test_an_app_with_a_newer_root_does_not_need_the_older_ones(twin: TwinRepository, tmp_path: Path) -> None:
    look(make_device(twin, tmp_path))
    with twin.edit() as roles:
        roles.set_keys(Authority.OWNER, [twin.owner.public_key])
    newer = TrustedMetadata(
        tmp_path, root=twin.fetch("metadata/2.root.json", 10_000), fetch=twin.fetch, clock=FakeClock(NOW)
    )
    look(newer)


def test_many_roots_are_followed_in_one_go(twin: TwinRepository, tmp_path: Path) -> None:
    for _ in range(40):
        twin.forge("root", bump, signers=[twin.owner])
    look(make_device(twin, tmp_path))
    assert json.loads((tmp_path / "root.json").read_bytes())["signed"]["version"] == 41


# Thresholds and signatures


@pytest.fixture
def two_of_three(twin: TwinRepository) -> list[CryptoSigner]:
    team = [make_key() for _ in range(3)]
    with twin.edit(twin.owner, twin.online, *team) as roles:
        roles.set_product_keys("app", [key.public_key for key in team], threshold=2)
    return team


def test_a_threshold_is_met_by_different_keys(
    twin: TwinRepository, device: TrustedMetadata, two_of_three: list[CryptoSigner]
) -> None:
    twin.forge("app", bump, signers=two_of_three[1:], link=True)
    look(device)


def test_a_threshold_is_not_met_by_one_key(
    twin: TwinRepository, device: TrustedMetadata, two_of_three: list[CryptoSigner]
) -> None:
    twin.forge("app", bump, signers=two_of_three[:1], link=True)
    with pytest.raises(Untrusted):
        look(device)


def test_a_threshold_is_not_met_by_one_key_and_strangers(
    twin: TwinRepository, device: TrustedMetadata, two_of_three: list[CryptoSigner]
) -> None:
    twin.forge("app", bump, signers=[two_of_three[0], twin.owner, twin.online, make_key()], link=True)
    with pytest.raises(Untrusted):
        look(device)


def test_a_threshold_is_not_met_by_the_same_signature_twice(
    twin: TwinRepository, device: TrustedMetadata, two_of_three: list[CryptoSigner]
) -> None:
    twin.forge("app", bump, signers=two_of_three[:1], link=True)
    key = current_key(twin.storage, "app")
    document = json.loads(twin.fetch(key, 100_000))
    for names in ([0, 0], [0, 1]):
        first = document["signatures"][0]
        document["signatures"] = [{**first, "keyid": two_of_three[number].public_key.keyid} for number in names]
        twin.storage.write(key, json.dumps(document).encode())
        with pytest.raises(Untrusted):
            look(device)


# Whatever else


@settings(max_examples=40)
@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists).map(
        lambda value: json.dumps({"signed": value, "signatures": value}).encode()
    )
)
def test_rubbish_is_untrusted_and_nothing_worse(tmp_path_factory: pytest.TempPathFactory, rubbish: bytes) -> None:
    twin = TwinRepository(now=NOW)
    twin.storage.write("metadata/timestamp.json", rubbish)
    with pytest.raises(Untrusted):
        make_device(twin, tmp_path_factory.mktemp("cache")).refresh()


@pytest.mark.parametrize(
    "field",
    ["_type", "expires", "version", "spec_version", "meta"],
)
@pytest.mark.parametrize("value", [None, -1, 1.5, "x", [], {}, "2026-13-01T00:00:00Z"], ids=str)
def test_fields_of_the_wrong_kind_are_untrusted(
    twin: TwinRepository, tmp_path: Path, field: str, value: object
) -> None:
    """Even under a good signature: whoever stole a key must not reach beyond what it signs."""
    from securesystemslib.formats import encode_canonical

    document = json.loads(twin.fetch("metadata/timestamp.json", 10_000))
    document["signed"][field] = value
    try:
        payload = encode_canonical(document["signed"])
    except Exception:  # noqa: BLE001  # not even canonical: then it cannot be signed either
        payload = ""
    signature = twin.online.sign((payload or "").encode())
    document["signatures"] = [signature.to_dict()]
    twin.storage.write("metadata/timestamp.json", json.dumps(document).encode())
    with pytest.raises(Untrusted):
        make_device(twin, tmp_path).refresh()


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "app", "app-channels"])
def test_after_an_attack_the_honest_repository_is_believed_again(
    twin: TwinRepository, tmp_path: Path, role: str
) -> None:
    honest = saved(twin.storage)
    twin.forge(role, leave, signers=[make_key()])
    with pytest.raises(Untrusted):
        look(make_device(twin, tmp_path))
    restore(twin.storage, honest)
    assert look(make_device(twin, tmp_path))[MANIFEST] == Digest.of(b"the owner's").raw


def read(objects: dict[str, bytes], key: str, limit: int) -> bytes:
    from instar.errors import NotFound

    if key not in objects:
        raise NotFound(key)
    return objects[key][:limit]
