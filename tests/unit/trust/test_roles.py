import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from instar.errors import Expired, Misconfigured, NotFound, Unavailable, Untrusted
from instar.model.digest import Digest
from instar.model.version import Version
from instar.testing.clock import FakeClock
from instar.testing.repository import TwinRepository, make_key, restore, saved
from instar.trust.layout import channels_path, manifest_path, taken_versions
from instar.trust.roles import MAX_DIRECT_MANIFESTS, Authority, Lifetimes, RoleSet
from instar.trust.verify import TrustedMetadata

NOW = datetime.now(UTC).replace(microsecond=0)
ONE = Digest.of(b"1")
MANIFEST = manifest_path("app", "linux-x86_64", "1.0")


@pytest.fixture
def twin() -> TwinRepository:
    return TwinRepository(now=NOW)


def on_device(twin: TwinRepository, folder: Path) -> TrustedMetadata:
    trusted = TrustedMetadata(folder, root=twin.root, fetch=twin.fetch, clock=FakeClock(NOW))
    trusted.refresh()
    return trusted


def signed(data: bytes) -> Any:
    return json.loads(data)["signed"]


def test_a_new_repository_comes_in_the_order_of_uploading_with_the_timestamp_last() -> None:
    roles = RoleSet.create([make_key().public_key], [make_key().public_key])
    with pytest.raises(Misconfigured, match="needs 1 signature"):
        roles.changes(NOW, [])
    owner, online = make_key(), make_key()
    roles = RoleSet.create([owner.public_key], [online.public_key])
    keys = [key for key, _ in roles.changes(NOW, [owner, online])]
    assert keys == [
        "metadata/1.targets.json",
        "metadata/1.snapshot.json",
        "metadata/1.root.json",
        "metadata/timestamp.json",
    ]


def test_nothing_edited_is_nothing_to_upload(twin: TwinRepository) -> None:
    assert twin.load().changes(NOW, []) == []


def test_signing_does_not_change_what_was_edited(twin: TwinRepository) -> None:
    roles = twin.load()
    roles.set_target(channels_path("app"), size=1, digest=ONE)
    first = roles.changes(NOW, [twin.online])
    assert roles.changes(NOW, [twin.online]) == first


def test_what_needs_only_the_online_key_signs_only_what_changed(twin: TwinRepository) -> None:
    roles = twin.load()
    roles.set_target(channels_path("app"), size=1, digest=ONE)
    assert [key for key, _ in roles.changes(NOW, [twin.online])] == [
        "metadata/2.app-channels.json",
        "metadata/2.snapshot.json",
        "metadata/timestamp.json",
    ]


def test_a_release_needs_the_owner(twin: TwinRepository) -> None:
    roles = twin.load()
    roles.set_target(MANIFEST, size=1, digest=ONE)
    with pytest.raises(Misconfigured, match="app metadata needs") as caught:
        roles.changes(NOW, [twin.online])
    assert twin.owner.public_key.keyid in str(caught.value)


def test_targets_come_back_as_they_were_given(twin: TwinRepository) -> None:
    with twin.edit() as roles:
        roles.set_target(MANIFEST, size=7, digest=ONE, custom={"deltas": [{"size": 3}]})
        roles.set_floor("app", "1.2.0")
    again = twin.load()
    found = again.target(MANIFEST)
    assert found is not None
    assert (found.size, found.digest, found.custom) == (7, ONE, {"deltas": [{"size": 3}]})
    assert found.key == f"targets/app/{ONE}.linux-x86_64-1.0.manifest"
    assert again.floor("app") == "1.2.0"
    assert list(again.targets("app")) == [MANIFEST, "app/security-floor"]
    with twin.edit() as roles:
        roles.remove_target(MANIFEST)
        roles.set_floor("app", None)
        roles.remove_target(MANIFEST)
    assert twin.load().targets("app") == {}
    assert twin.load().floor("app") is None


@pytest.mark.parametrize(
    "path",
    ["", "app", "app/", "app/x", "other/channels.json", "app/a/b-1.manifest", "app/channels.json/", "../channels.json"],
)
def test_paths_that_no_role_may_sign_are_refused(twin: TwinRepository, path: str) -> None:
    with pytest.raises(Misconfigured):
        twin.load().set_target(path, size=1, digest=ONE)


@pytest.mark.parametrize("name", ["app", "targets", "app-channels", "x-bins-00", "Big", "../x", ""])
def test_products_that_cannot_be_are_refused(twin: TwinRepository, name: str) -> None:
    with pytest.raises(Misconfigured):
        twin.load().add_product(name)


def test_a_team_signs_its_own_product_and_no_other(twin: TwinRepository) -> None:
    team = make_key()
    with twin.edit(twin.owner, twin.online, team) as roles:
        roles.add_product("tool", keys=[team.public_key])
    assert twin.load().products == ("app", "tool")
    roles = twin.load()
    roles.set_target("tool/any-1.0.manifest", size=1, digest=ONE)
    assert roles.changes(NOW, [team, twin.online])
    roles = twin.load()
    roles.set_target(MANIFEST, size=1, digest=ONE)
    with pytest.raises(Misconfigured):
        roles.changes(NOW, [team, twin.online])


def test_new_files_overwrite_none_that_is_left_over(twin: TwinRepository) -> None:
    for key in ("metadata/7.snapshot.json", "metadata/4.app-channels.json"):
        twin.storage.write(key, b"left over")
    roles = twin.load()
    roles.set_target(channels_path("app"), size=1, digest=ONE)
    taken = taken_versions(str(item.key) for item in twin.storage.list())
    files = dict(roles.changes(NOW, [twin.online], taken=taken))
    assert list(files) == ["metadata/5.app-channels.json", "metadata/8.snapshot.json", "metadata/timestamp.json"]
    assert signed(files["metadata/8.snapshot.json"])["meta"]["app-channels.json"] == {"version": 5}
    assert signed(files["metadata/timestamp.json"])["version"] == 2


def test_a_root_that_was_left_over_counts(twin: TwinRepository, tmp_path: Path) -> None:
    new = make_key()
    roles = twin.load()
    roles.set_keys(Authority.OWNER, [twin.owner.public_key, new.public_key])
    files = dict(roles.changes(NOW, [twin.owner, twin.online]))
    twin.storage.write("metadata/2.root.json", files["metadata/2.root.json"])
    with twin.edit() as roles:
        roles.set_keys(Authority.OWNER, [twin.owner.public_key])
    assert twin.storage.read("metadata/3.root.json", limit=10_000)
    on_device(twin, tmp_path)


def test_the_snapshot_names_versions_only(twin: TwinRepository) -> None:
    snapshot = signed(twin.fetch("metadata/1.snapshot.json", 10_000))
    assert snapshot["meta"] == {name: {"version": 1} for name in ("app-channels.json", "app.json", "targets.json")}


def test_a_publisher_whose_clock_ran_ahead_does_not_leave_devices_behind(twin: TwinRepository, tmp_path: Path) -> None:
    with twin.edit(now=NOW + timedelta(days=20)) as roles:
        roles.set_target(channels_path("app"), size=1, digest=ONE)
    on_device(twin, tmp_path)
    with twin.edit(now=NOW) as roles:
        roles.set_target(channels_path("app"), size=2, digest=ONE)
    trusted = on_device(twin, tmp_path)
    assert trusted.expires == NOW + timedelta(days=27)


# Hash bins


def test_a_time_beyond_the_owners_roles_was_kept_by_no_device_and_binds_no_publisher(
    twin: TwinRepository, tmp_path: Path
) -> None:
    def run_ahead(timestamp: Any) -> None:
        timestamp.version += 1
        timestamp.unrecognized_fields["x-instar-signed-at"] = "9999-12-31T23:59:59Z"

    trusted = on_device(twin, tmp_path)
    twin.forge("timestamp", run_ahead, signers=[twin.online])
    with pytest.raises(Expired):
        trusted.refresh()
    with twin.edit(twin.owner, twin.online) as roles:
        roles.set_target(MANIFEST, size=1, digest=ONE)
    assert on_device(twin, tmp_path).now == NOW


@pytest.mark.parametrize(
    "claimed",
    [(NOW + timedelta(days=25)).strftime("%Y-%m-%dT%H:%M:%SZ"), "9999-12-31T23:59:59Z"],
    ids=["soon", "never"],
)
def test_a_time_that_a_thief_signed_ends_with_the_stolen_key(
    twin: TwinRepository, tmp_path: Path, claimed: str
) -> None:
    def run_ahead(timestamp: Any) -> None:
        timestamp.version += 1
        timestamp.unrecognized_fields["x-instar-signed-at"] = claimed

    # Nobody puts the honest timestamp back: the owner finds in the storage what the thief left there.
    twin.forge("timestamp", run_ahead, signers=[twin.online])
    thief, twin.online = twin.online, make_key()
    for keys in ([thief, twin.online], [twin.online]):
        with twin.edit(twin.owner, *keys) as roles:
            roles.set_keys(Authority.ONLINE, [key.public_key for key in keys])
    assert on_device(twin, tmp_path).now == NOW


def test_a_product_with_many_releases_moves_into_bins_and_old_clients_find_everything(
    twin: TwinRepository, tmp_path: Path
) -> None:
    paths = [manifest_path("app", "linux-x86_64", f"1.{n}") for n in range(MAX_DIRECT_MANIFESTS + 1)]
    with twin.edit() as roles:
        for path in paths[:-1]:
            roles.set_target(path, size=1, digest=ONE)
        roles.set_floor("app", "1.1")
    trusted = on_device(twin, tmp_path)
    assert trusted.target(paths[0]) is not None
    assert not any("bins" in item.key for item in twin.storage.list())

    with twin.edit() as roles:
        roles.set_target(paths[-1], size=2, digest=ONE)
    assert sum("bins" in item.key for item in twin.storage.list()) == 256
    trusted.refresh()
    assert all(trusted.target(path) is not None for path in paths[::16])
    assert trusted.target("app/linux-x86_64-9.manifest") is None
    floor = trusted.target("app/security-floor")
    assert floor is not None
    assert floor.custom == {"floor": "1.1"}
    assert set(twin.load().targets("app")) == {*paths, "app/security-floor"}

    roles = twin.load()
    roles.set_target(paths[0], size=3, digest=ONE)
    files = roles.changes(NOW, [twin.owner, twin.online])
    assert len(files) == 3  # its bin, snapshot, timestamp

    # The bins' keys follow the owner's. In one step here: each bin is read by the keys that signed it.
    fresh = make_key()
    with twin.edit(twin.owner, twin.online, fresh) as roles:
        roles.set_keys(Authority.OWNER, [fresh.public_key])
    trusted.refresh()
    assert all(trusted.target(path) is not None for path in paths[::16])


def test_with_bins_a_check_for_the_security_floor_fetches_no_bin(twin: TwinRepository, tmp_path: Path) -> None:
    with twin.edit() as roles:
        for number in range(MAX_DIRECT_MANIFESTS + 1):
            roles.set_target(manifest_path("app", "any", number), size=1, digest=ONE)
    for floor in (None, "1.5", None):
        with twin.edit() as roles:
            roles.set_floor("app", floor)
        assert twin.load().floor("app") == floor
        trusted = on_device(twin, tmp_path)
        found = trusted.target("app/security-floor")
        assert found is not None
        assert (Version(found.custom["floor"]) > Version("0a0.dev0")) is (floor is not None)
    assert not list(tmp_path.glob("*bins*"))


# Keys


@pytest.mark.parametrize("authority", list(Authority))
def test_a_key_is_replaced_in_two_publications_and_no_client_ever_stumbles(
    twin: TwinRepository, tmp_path: Path, authority: Authority
) -> None:
    on_device(twin, tmp_path / "old")
    old = twin.owner if authority is Authority.OWNER else twin.online
    new = make_key()
    signers = [twin.owner, twin.online, new]
    for step, keys in enumerate(([old, new], [new])):
        roles = twin.load()
        roles.set_keys(authority, [key.public_key for key in keys])
        for number, (key, data) in enumerate(roles.changes(NOW, signers)):
            # A device that looks between any two uploads.
            on_device(twin, tmp_path / f"{step}-{number}")
            on_device(twin, tmp_path / "old")
            twin.storage.write(key, data)
        on_device(twin, tmp_path / "old")
    keep = [new, twin.online] if authority is Authority.OWNER else [twin.owner, new]
    roles = twin.load()
    roles.set_target(channels_path("app"), size=1, digest=ONE)
    roles.set_target(MANIFEST, size=1, digest=ONE)
    assert roles.changes(NOW, keep)
    with pytest.raises(Misconfigured):
        roles.changes(NOW, [twin.owner, twin.online])


def test_a_new_root_is_signed_by_the_old_keys_and_the_new(twin: TwinRepository) -> None:
    new = make_key()
    roles = twin.load()
    roles.set_keys(Authority.OWNER, [new.public_key])
    for signers in ([twin.owner, twin.online], [new, twin.online]):
        with pytest.raises(Misconfigured, match="metadata needs"):
            roles.changes(NOW, signers)
    files = dict(roles.changes(NOW, [twin.owner, new, twin.online]))
    signatures = json.loads(files["metadata/2.root.json"])["signatures"]
    assert {each["keyid"] for each in signatures} == {twin.owner.public_key.keyid, new.public_key.keyid}


def test_keys_of_every_common_kind_sign_and_are_believed(tmp_path: Path) -> None:
    """Key services rarely have Ed25519."""
    owner = [CryptoSigner.generate_rsa(size=2048), CryptoSigner.generate_ecdsa(), CryptoSigner.generate_ed25519()]
    online = CryptoSigner.generate_ecdsa(scheme="ecdsa-sha2-nistp384")
    roles = RoleSet.create([key.public_key for key in owner], [online.public_key], owner_threshold=3)
    roles.add_product("app")
    roles.set_target(channels_path("app"), size=1, digest=ONE)
    files = dict(roles.changes(NOW, [*owner, online]))

    def fetch(key: str, limit: int) -> bytes:
        if key not in files:
            raise NotFound(f"{key} {limit}")
        return files[key]

    trusted = TrustedMetadata(tmp_path, root=files["metadata/1.root.json"], fetch=fetch, clock=FakeClock(NOW))
    trusted.refresh()
    assert trusted.target(channels_path("app")) is not None
    assert RoleSet.load(fetch, root=files["metadata/1.root.json"]).products == ("app",)


def test_a_threshold_wants_as_many_different_keys() -> None:
    owners, online = [make_key() for _ in range(3)], make_key()
    roles = RoleSet.create([key.public_key for key in owners], [online.public_key], owner_threshold=2)
    roles.add_product("app")
    with pytest.raises(Misconfigured, match="needs 2"):
        roles.changes(NOW, [owners[0], owners[0], online])
    assert roles.changes(NOW, [*owners[1:], online])


def test_keys_of_their_own_stay_when_the_owners_change(twin: TwinRepository) -> None:
    team, new = make_key(), make_key()
    with twin.edit(twin.owner, twin.online, team) as roles:
        roles.add_product("tool", keys=[team.public_key])
    with twin.edit(twin.owner, twin.online, new) as roles:
        roles.set_keys(Authority.OWNER, [new.public_key])
    roles = twin.load()
    assert [key.keyid for key in roles.keys(Authority.OWNER)] == [new.public_key.keyid]
    roles.set_target("tool/any-1.manifest", size=1, digest=ONE)
    assert roles.changes(NOW, [team, twin.online])


@pytest.mark.parametrize("threshold", [0, 2, -1])
def test_thresholds_that_cannot_be_met_are_refused(twin: TwinRepository, threshold: int) -> None:
    with pytest.raises(Misconfigured):
        twin.load().set_keys(Authority.ONLINE, [twin.online.public_key], threshold=threshold)


def test_one_key_is_not_two_authorities(twin: TwinRepository) -> None:
    with pytest.raises(Misconfigured, match="both"):
        twin.load().set_keys(Authority.ONLINE, [twin.owner.public_key])
    with pytest.raises(Misconfigured, match="both"):
        twin.load().add_product("tool", keys=[twin.online.public_key])
    with pytest.raises(Misconfigured):
        RoleSet.create([], [twin.online.public_key])


# Renewal


def test_what_has_a_third_of_its_life_left_is_renewed_and_nothing_else(twin: TwinRepository) -> None:
    day = timedelta(days=1)
    assert twin.load().renew(NOW + 4 * day, [twin.online]).renewed == ()
    assert twin.load().renew(NOW + 5 * day, [twin.online]).renewed == ("timestamp",)
    renewal = twin.load().renew(NOW + 21 * day, [twin.online])
    assert renewal.renewed == ("app-channels", "snapshot", "timestamp")
    renewal = twin.load().renew(NOW + 250 * day, [twin.online])
    assert set(renewal.missing) == {"root", "targets", "app"}
    roles = twin.load()
    assert roles.renew(NOW + 5 * day, [twin.online]).renewed == ("timestamp",)
    assert [key for key, _ in roles.changes(NOW + 5 * day, [twin.online])] == ["metadata/timestamp.json"]


def test_what_has_expired_can_still_be_loaded_and_renewed(tmp_path: Path) -> None:
    twin = TwinRepository(now=NOW - timedelta(days=400))
    with twin.edit(now=NOW) as roles:
        renewal = roles.renew(NOW, [twin.owner, twin.online])
    assert set(renewal.renewed) == {"root", "timestamp", "snapshot", "targets", "app", "app-channels"}
    on_device(twin, tmp_path)


@settings(max_examples=25)
@given(st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8) | st.lists(st.booleans(), max_size=3)))
def test_what_is_said_about_a_target_comes_through_signing(custom: dict[str, Any]) -> None:
    twin = TwinRepository(now=NOW)
    with twin.edit() as roles:
        roles.set_target(MANIFEST, size=1, digest=ONE, custom=custom)
    found = twin.load().target(MANIFEST)
    assert found is not None
    assert found.custom == custom


def test_what_cannot_be_signed_is_refused(twin: TwinRepository) -> None:
    roles = twin.load()
    roles.set_target(MANIFEST, size=1, digest=ONE, custom={"half": 0.5})
    with pytest.raises(Misconfigured, match="app"):
        roles.changes(NOW, [twin.owner, twin.online])


def test_what_devices_would_not_take_is_refused(twin: TwinRepository) -> None:
    roles = twin.load()
    roles.set_target(MANIFEST, size=1, digest=ONE, custom={"notes": "x" * 5_000_000})
    with pytest.raises(Misconfigured, match="devices take"):
        roles.changes(NOW, [twin.owner, twin.online])


# A storage that lies to the publisher


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets", "app", "app-channels"])
def test_a_publisher_signs_nothing_that_a_stranger_put_into_the_storage(twin: TwinRepository, role: str) -> None:
    twin.put(MANIFEST, b"good")

    def change(forged: Any) -> None:
        if role == "root":
            forged.version += 1
        else:
            forged.unrecognized_fields["evil"] = "1"

    twin.forge(role, change, signers=[make_key()])
    with pytest.raises(Untrusted, match=role):
        twin.load().expiries()


def test_a_root_that_its_own_keys_did_not_sign_is_not_followed(twin: TwinRepository) -> None:
    new = make_key()

    def replace_key(root: Any) -> None:
        root.version += 1
        root.add_key(new.public_key, "root")
        root.revoke_key(twin.owner.public_key.keyid, "root")

    twin.forge("root", replace_key, signers=[twin.owner])
    with pytest.raises(Untrusted, match="root"):
        twin.load()


def test_another_version_under_a_name_is_not_taken(twin: TwinRepository) -> None:
    old = twin.fetch("metadata/1.app-channels.json", 10_000)
    twin.put(channels_path("app"), b"x")
    twin.storage.write("metadata/2.app-channels.json", old)
    with pytest.raises(Untrusted, match="version 1, not 2"):
        twin.load().target(channels_path("app"))


def test_another_type_under_a_name_is_not_taken(twin: TwinRepository) -> None:
    twin.storage.write("metadata/1.snapshot.json", twin.fetch("metadata/timestamp.json", 10_000))
    with pytest.raises(Untrusted, match="type timestamp"):
        twin.load()


def test_a_repository_of_another_tool_is_not_taken_over(twin: TwinRepository) -> None:
    def drop(targets: Any) -> None:
        targets.version += 1
        targets.delegations = None

    twin.forge("targets", drop, signers=[twin.owner], link=True)
    with pytest.raises(Misconfigured, match="does not delegate"):
        _ = twin.load().products


def test_a_role_that_the_snapshot_hides_is_not_made_anew(twin: TwinRepository) -> None:
    def hide(snapshot: Any) -> None:
        snapshot.version += 1
        del snapshot.meta["app.json"]

    twin.forge("snapshot", hide, signers=[twin.online], link=True)
    with pytest.raises(Untrusted, match="does not name the role app"):
        twin.load().set_target(MANIFEST, size=1, digest=ONE)


def test_no_repository_yet_is_not_found(twin: TwinRepository) -> None:
    restore(twin.storage, {})
    with pytest.raises(NotFound):
        twin.load()


@pytest.mark.parametrize("root", [b"", b"{}", b"\xff"])
def test_a_trusted_root_that_is_none_is_the_publishers_mistake(twin: TwinRepository, root: bytes) -> None:
    with pytest.raises(Misconfigured, match="root"):
        RoleSet.load(twin.fetch, root=root)


def test_a_key_service_that_fails_is_unavailable(twin: TwinRepository) -> None:
    class Broken(type(twin.online)):  # type: ignore[misc]
        def sign(self, payload: bytes) -> Any:
            raise ConnectionError(str(len(payload)))

    broken = Broken(twin.online._private_key)
    roles = twin.load()
    roles.set_target(channels_path("app"), size=1, digest=ONE)
    with pytest.raises(Unavailable, match="did not sign"):
        roles.changes(NOW, [broken])


def test_loading_reads_few_files(twin: TwinRepository) -> None:
    asked: list[str] = []

    def fetch(key: str, limit: int) -> bytes:
        asked.append(key)
        return twin.fetch(key, limit)

    RoleSet.load(fetch, root=twin.root).target(channels_path("app"))
    assert asked == [
        "metadata/2.root.json",
        "metadata/timestamp.json",
        "metadata/1.snapshot.json",
        "metadata/1.targets.json",
        "metadata/1.app-channels.json",
    ]
    assert len(saved(twin.storage)) == 6


def test_lifetimes_are_those_that_were_asked_for() -> None:
    twin = TwinRepository(now=NOW, lifetimes=Lifetimes(root=timedelta(days=2), timestamp=timedelta(hours=1)))
    assert twin.load().expiries()["root"] == NOW + timedelta(days=2)
    assert twin.load().expiries()["timestamp"] == NOW + timedelta(hours=1)
