import gc
import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from instar.errors import Expired, InstallFailed, Misconfigured, NotFound, Unavailable, Untrusted
from instar.model.digest import Digest
from instar.testing.clock import FakeClock
from instar.testing.crash import READ_ONLY, run
from instar.testing.repository import TwinRepository, current_key
from instar.trust.layout import MAX_SNAPSHOT, MAX_TIMESTAMP, Fetch, role_bound
from instar.trust.roles import Authority, Lifetimes
from instar.trust.verify import TrustedMetadata

# tuf judges by the machine's clock, so these repositories are signed at the machine's time.
NOW = datetime.now(UTC).replace(microsecond=0)
MANIFEST = "app/linux-x86_64-1.0.manifest"


@pytest.fixture
def twin() -> TwinRepository:
    twin = TwinRepository(now=NOW)
    twin.put(MANIFEST, b"manifest", {"json": {"size": 8}})
    twin.put("app/channels.json", b"{}")
    return twin


def device(
    twin: TwinRepository,
    folder: Path,
    *,
    clock: FakeClock | None = None,
    fetch: Fetch | None = None,
    not_before: datetime | None = None,
) -> TrustedMetadata:
    return TrustedMetadata(
        folder / "deep" / "cache",
        root=twin.root,
        fetch=fetch or twin.fetch,
        clock=clock or FakeClock(NOW),
        not_before=not_before,
    )


def unreachable(key: str, limit: int) -> bytes:
    msg = f"{key} ({limit})"
    raise Unavailable(msg)


def test_a_target_says_where_it_is_and_what_it_must_be(twin: TwinRepository, tmp_path: Path) -> None:
    trusted = device(twin, tmp_path)
    trusted.refresh()
    found = trusted.target(MANIFEST)
    assert found is not None
    assert (found.size, found.digest, found.custom) == (8, Digest.of(b"manifest"), {"json": {"size": 8}})
    assert found.key == f"targets/app/{found.digest}.linux-x86_64-1.0.manifest"
    assert twin.fetch(found.key, 100) == b"manifest"


def test_a_target_that_nobody_vouches_for_is_none(twin: TwinRepository, tmp_path: Path) -> None:
    trusted = device(twin, tmp_path)
    trusted.refresh()
    assert trusted.target("app/linux-x86_64-9.9.manifest") is None
    assert trusted.target("other/channels.json") is None


def test_a_check_that_finds_nothing_new_makes_two_requests(twin: TwinRepository, tmp_path: Path) -> None:
    asked: list[str] = []

    def fetch(key: str, limit: int) -> bytes:
        asked.append(key)
        return twin.fetch(key, limit)

    trusted = device(twin, tmp_path, fetch=fetch)
    trusted.refresh()
    trusted.target("app/channels.json")
    asked.clear()
    trusted.refresh()
    trusted.target("app/channels.json")
    assert asked == ["metadata/2.root.json", "metadata/timestamp.json"]


def test_what_changed_is_seen_by_the_next_refresh_of_the_same_object(twin: TwinRepository, tmp_path: Path) -> None:
    trusted = device(twin, tmp_path)
    trusted.refresh()
    twin.put("app/channels.json", b"new")
    trusted.refresh()
    found = trusted.target("app/channels.json")
    assert found is not None
    assert found.digest == Digest.of(b"new")


@pytest.mark.parametrize("field", ["hashes", "custom"])
def test_a_signed_entry_that_instar_cannot_use_is_untrusted(twin: TwinRepository, tmp_path: Path, field: str) -> None:
    def change(targets: Any) -> None:
        targets.version += 1
        entry = targets.targets[MANIFEST]
        if field == "hashes":
            entry.hashes = {"sha512": "0" * 128}
        else:
            entry.unrecognized_fields["custom"] = ["no", "object"]

    twin.forge("app", change, signers=[twin.owner], link=True)
    trusted = device(twin, tmp_path)
    trusted.refresh()
    with pytest.raises(Untrusted, match="none that instar understands"):
        trusted.target(MANIFEST)


def test_nothing_can_be_asked_before_something_is_believed(twin: TwinRepository, tmp_path: Path) -> None:
    trusted = device(twin, tmp_path)
    with pytest.raises(RuntimeError):
        trusted.target(MANIFEST)
    with pytest.raises(RuntimeError):
        _ = trusted.expires


def test_after_a_failed_refresh_nothing_is_answered_from_before(twin: TwinRepository, tmp_path: Path) -> None:
    online = True

    def fetch(key: str, limit: int) -> bytes:
        return (twin.fetch if online else unreachable)(key, limit)

    trusted = device(twin, tmp_path, fetch=fetch)
    trusted.refresh()
    online = False
    with pytest.raises(Unavailable):
        trusted.refresh()
    with pytest.raises(RuntimeError):
        trusted.target(MANIFEST)
    trusted.load()
    assert trusted.target("app/nothing") is None


def test_without_a_network_the_cache_is_believed(twin: TwinRepository, tmp_path: Path) -> None:
    first = device(twin, tmp_path)
    first.refresh()
    first.target("app/channels.json")
    offline = device(twin, tmp_path, fetch=unreachable)
    offline.load()
    assert offline.target("app/channels.json") == first.target("app/channels.json")
    with pytest.raises(NotFound, match="not in the cache"):
        offline.target(MANIFEST)


def test_without_a_network_the_cache_may_be_on_a_read_only_disk(twin: TwinRepository, tmp_path: Path) -> None:
    online = device(twin, tmp_path)
    online.refresh()
    online.target(MANIFEST)
    later = NOW + timedelta(days=2)

    def look() -> None:
        offline = device(twin, tmp_path, fetch=unreachable)
        offline.load()
        assert offline.target(MANIFEST) is not None
        offline.note_time(later)
        assert offline.now == later

    ended = run(look, below=tmp_path / "deep", fault=READ_ONLY, at=1)
    assert ended.finished, ended.trace
    assert ended.reached
    assert device(twin, tmp_path).now == NOW


def test_the_copy_of_the_cache_goes_with_its_reader(
    twin: TwinRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    device(twin, tmp_path).refresh()
    offline = device(twin, tmp_path, fetch=unreachable)
    offline.load()
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    del offline
    gc.collect()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_without_network_and_cache_it_says_so(twin: TwinRepository, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="not in the cache"):
        device(twin, tmp_path).load()


def test_the_cache_is_the_role_files_byte_for_byte(twin: TwinRepository, tmp_path: Path) -> None:
    trusted = device(twin, tmp_path)
    trusted.refresh()
    trusted.target("app/channels.json")
    cache = tmp_path / "deep" / "cache"
    assert (cache / "timestamp.json").read_bytes() == twin.fetch("metadata/timestamp.json", MAX_TIMESTAMP)
    assert {path.name for path in cache.glob("*.json")} == {
        "root.json",
        "timestamp.json",
        "snapshot.json",
        "targets.json",
        "app-channels.json",
    }


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"{}", b'{"signed": {}, "signatures": []}'])
@pytest.mark.parametrize("name", ["timestamp.json", "snapshot.json", "targets.json", "root_history/1.root.json"])
def test_a_damaged_cache_heals(twin: TwinRepository, tmp_path: Path, name: str, damage: bytes) -> None:
    device(twin, tmp_path).refresh()
    (tmp_path / "deep" / "cache" / name).write_bytes(damage)
    trusted = device(twin, tmp_path)
    trusted.refresh()
    assert trusted.target(MANIFEST) is not None


def test_a_damaged_cache_without_network_is_unavailable_not_an_attack(twin: TwinRepository, tmp_path: Path) -> None:
    device(twin, tmp_path).refresh()
    (tmp_path / "deep" / "cache" / "snapshot.json").write_bytes(b"{")
    with pytest.raises(Unavailable, match="not complete"):
        device(twin, tmp_path).load()


def test_things_in_the_way_of_the_cache_are_cleared(twin: TwinRepository, tmp_path: Path) -> None:
    device(twin, tmp_path).refresh()
    cache = tmp_path / "deep" / "cache"
    for name in ("root.json", "timestamp.json", "snapshot.json"):
        (cache / name).unlink()
        (cache / name / "inside").mkdir(parents=True)
    (cache / "tmpabcdefg").write_bytes(b"left by a killed process")
    (cache / "targets.json").write_bytes(b" " * (role_bound("targets") + 1))
    device(twin, tmp_path).refresh()
    assert not (cache / "tmpabcdefg").exists()
    assert (cache / "targets.json").stat().st_size < MAX_SNAPSHOT


def test_a_file_in_the_place_of_the_root_history_is_cleared(twin: TwinRepository, tmp_path: Path) -> None:
    cache = tmp_path / "deep" / "cache"
    cache.mkdir(parents=True)
    (cache / "root_history").write_bytes(b"")
    device(twin, tmp_path).refresh()
    assert (cache / "root_history" / "1.root.json").is_file()


def test_a_cache_that_cannot_be_written_is_a_failure_of_this_machine(twin: TwinRepository, tmp_path: Path) -> None:
    (tmp_path / "deep").write_bytes(b"a file where a folder should be")
    with pytest.raises(InstallFailed, match="cache"):
        device(twin, tmp_path).refresh()


@pytest.mark.parametrize("root", [b"", b"{}", b"no json", b"\xff"])
def test_a_root_that_is_none_is_the_apps_mistake(twin: TwinRepository, tmp_path: Path, root: bytes) -> None:
    trusted = TrustedMetadata(tmp_path, root=root, fetch=twin.fetch, clock=FakeClock(NOW))
    with pytest.raises(Misconfigured, match="root"):
        trusted.refresh()


def test_another_role_is_no_root(twin: TwinRepository, tmp_path: Path) -> None:
    other = twin.fetch("metadata/1.targets.json", 10_000)
    with pytest.raises(Misconfigured, match="root"):
        TrustedMetadata(tmp_path, root=other, fetch=twin.fetch, clock=FakeClock(NOW)).refresh()


def test_a_connection_that_breaks_is_unavailable_whatever_it_raises(twin: TwinRepository, tmp_path: Path) -> None:
    def fetch(key: str, limit: int) -> bytes:
        raise ConnectionResetError(f"{key} {limit}")

    with pytest.raises(Unavailable, match="could not be fetched"):
        device(twin, tmp_path, fetch=fetch).refresh()


def test_a_missing_file_is_named(twin: TwinRepository, tmp_path: Path) -> None:
    twin.storage.delete("metadata/timestamp.json")
    with pytest.raises(NotFound, match=r"timestamp\.json"):
        device(twin, tmp_path).refresh()


def test_a_repository_without_consistent_snapshots_is_read_by_plain_names(twin: TwinRepository, tmp_path: Path) -> None:
    """instar makes none, but another publisher's tool may."""

    def be_plain(root: Any) -> None:
        root.version += 1
        root.consistent_snapshot = False

    twin.forge("root", be_plain, signers=[twin.owner])
    for role in ("snapshot", "targets", "app"):
        twin.storage.write(f"metadata/{role}.json", twin.fetch(current_key(twin.storage, role), 100_000))
    trusted = device(twin, tmp_path)
    trusted.refresh()
    found = trusted.target(MANIFEST)
    assert found is not None
    assert found.key == f"targets/{MANIFEST}"


# Time


def test_expires_is_the_end_of_the_first_role_that_was_needed(tmp_path: Path) -> None:
    lifetimes = Lifetimes(timestamp=timedelta(days=20), channels=timedelta(days=10), targets=timedelta(days=5))
    twin = TwinRepository(now=NOW, lifetimes=lifetimes)
    twin.put("app/channels.json", b"{}")
    with twin.edit(twin.owner, twin.online) as roles:
        roles.set_product_keys("app", [twin.owner.public_key])
    trusted = device(twin, tmp_path)
    trusted.refresh()
    assert trusted.expires == NOW + timedelta(days=5)


def test_a_clock_in_1970_works(twin: TwinRepository, tmp_path: Path) -> None:
    clock = FakeClock(datetime(1970, 1, 1, tzinfo=UTC))
    trusted = device(twin, tmp_path, clock=clock)
    trusted.refresh()
    assert trusted.target(MANIFEST) is not None
    # It learned what time it is at least from the signed timestamp.
    assert trusted.now == NOW


def test_a_clock_that_is_reset_does_not_make_old_metadata_young(twin: TwinRepository, tmp_path: Path) -> None:
    clock = FakeClock(NOW + timedelta(days=6))
    device(twin, tmp_path, clock=clock).refresh()
    clock.set(datetime(1970, 1, 1, tzinfo=UTC))
    trusted = device(twin, tmp_path, clock=clock)
    assert trusted.now == NOW + timedelta(days=6)
    trusted.load()
    trusted.note_time(NOW + timedelta(days=6, hours=23))
    assert device(twin, tmp_path, clock=clock).now == NOW + timedelta(days=6, hours=23)


def test_the_build_time_is_past_even_if_the_clock_denies_it(twin: TwinRepository, tmp_path: Path) -> None:
    clock = FakeClock(datetime(1970, 1, 1, tzinfo=UTC))
    build = NOW + timedelta(days=8)
    with pytest.raises(Expired) as caught:
        device(twin, tmp_path, clock=clock, not_before=build).refresh()
    assert caught.value.since == NOW + timedelta(days=7)


@pytest.mark.parametrize(
    ("days", "role"),
    [(7, "timestamp"), (31, "timestamp"), (366, "root")],
    ids=["timestamp", "more", "everything"],
)
def test_a_clock_far_ahead_says_expired_since_when(twin: TwinRepository, tmp_path: Path, days: int, role: str) -> None:
    device(twin, tmp_path).refresh()
    for attempt in (TrustedMetadata.refresh, TrustedMetadata.load):
        with pytest.raises(Expired, match=role) as caught:
            attempt(device(twin, tmp_path, clock=FakeClock(NOW + timedelta(days=days))))
        assert caught.value.since == NOW + timedelta(days=365 if role == "root" else 7)
    # And when the clock is right again, all is well: nothing wrong was remembered.
    device(twin, tmp_path).refresh()


def test_what_is_expired_by_the_machines_clock_says_since_when(tmp_path: Path) -> None:
    """Tuf itself judges here, not we: signed ten days ago."""
    twin = TwinRepository(now=NOW - timedelta(days=10))
    with pytest.raises(Expired, match="timestamp") as caught:
        device(twin, tmp_path).refresh()
    assert caught.value.since == NOW - timedelta(days=3)


def test_what_expired_in_the_cache_is_replaced_by_what_is_valid(twin: TwinRepository, tmp_path: Path) -> None:
    device(twin, tmp_path).refresh()
    with twin.edit(now=NOW + timedelta(days=10)) as roles:
        roles.renew(NOW + timedelta(days=10), [twin.online])
    trusted = device(twin, tmp_path, clock=FakeClock(NOW + timedelta(days=10)))
    trusted.refresh()
    assert trusted.expires > NOW + timedelta(days=16)


def test_a_role_that_expired_is_judged_when_it_is_needed(tmp_path: Path) -> None:
    twin = TwinRepository(now=NOW, lifetimes=Lifetimes(channels=timedelta(days=1)))
    twin.put("app/channels.json", b"{}")
    clock = FakeClock(NOW)
    trusted = device(twin, tmp_path, clock=clock)
    trusted.refresh()
    clock.set(NOW + timedelta(days=2))
    with pytest.raises(Expired, match="app-channels"):
        trusted.target("app/channels.json")


def test_a_clock_in_1970_learns_from_the_newest_timestamp_that_a_role_is_over(tmp_path: Path) -> None:
    twin = TwinRepository(now=NOW, lifetimes=Lifetimes(targets=timedelta(days=5)))
    with twin.edit(twin.online, now=NOW + timedelta(days=6)) as roles:
        roles.renew(NOW + timedelta(days=6), [twin.online])
    with pytest.raises(Expired, match="targets") as caught:
        device(twin, tmp_path, clock=FakeClock(datetime(1970, 1, 1, tzinfo=UTC))).refresh()
    assert caught.value.since == NOW + timedelta(days=5)


def test_noted_times_that_would_end_updates_are_not_believed(twin: TwinRepository, tmp_path: Path) -> None:
    trusted = device(twin, tmp_path)
    trusted.refresh()
    trusted.note_time(NOW + timedelta(days=3650))
    trusted.refresh()
    assert trusted.now == NOW


def test_noted_times_never_go_back(twin: TwinRepository, tmp_path: Path) -> None:
    trusted = device(twin, tmp_path)
    trusted.refresh()
    trusted.note_time(NOW + timedelta(days=3))
    trusted.note_time(NOW + timedelta(days=2))
    trusted.refresh()
    assert trusted.now == NOW + timedelta(days=3)


def test_new_online_keys_end_a_time_that_a_thief_signed(twin: TwinRepository, tmp_path: Path) -> None:
    def run_ahead(timestamp: Any) -> None:
        timestamp.version += 1
        timestamp.expires = NOW + timedelta(days=300)
        timestamp.unrecognized_fields["x-instar-signed-at"] = (NOW + timedelta(days=25)).strftime("%Y-%m-%dT%H:%M:%SZ")

    honest = twin.fetch("metadata/timestamp.json", MAX_TIMESTAMP)
    twin.forge("timestamp", run_ahead, signers=[twin.online])
    trusted = device(twin, tmp_path)
    trusted.refresh()
    assert trusted.now == NOW + timedelta(days=25)
    twin.storage.write("metadata/timestamp.json", honest)
    thief, twin.online = twin.online, TwinRepository().online
    for keys in ([thief, twin.online], [twin.online]):
        with twin.edit(twin.owner, twin.online) as roles:
            roles.set_keys(Authority.ONLINE, [key.public_key for key in keys])
    trusted.refresh()
    assert trusted.now == NOW


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b"null", b'{"keys": [], "time": 3}', b"x" * 10_000])
def test_a_damaged_time_record_is_none(twin: TwinRepository, tmp_path: Path, record: bytes) -> None:
    device(twin, tmp_path).refresh()
    (tmp_path / "deep" / "cache" / "trusted-time").write_bytes(record)
    trusted = device(twin, tmp_path)
    trusted.refresh()
    assert json.loads((tmp_path / "deep" / "cache" / "trusted-time").read_bytes())["time"]


# Bounds


def test_signed_lengths_cannot_raise_the_bounds(twin: TwinRepository, tmp_path: Path) -> None:
    limits: dict[str, int] = {}

    def fetch(key: str, limit: int) -> bytes:
        limits[key] = limit
        return twin.fetch(key, limit)

    def enlarge(timestamp: Any) -> None:
        timestamp.version += 1
        timestamp.snapshot_meta.length = 1 << 40

    twin.forge("timestamp", enlarge, signers=[twin.online])
    with pytest.raises(Untrusted):
        device(twin, tmp_path, fetch=fetch).refresh()
    assert limits["metadata/3.snapshot.json"] == MAX_SNAPSHOT
    assert limits["metadata/timestamp.json"] == MAX_TIMESTAMP


def test_a_source_that_ignores_its_limit_is_not_believed(twin: TwinRepository, tmp_path: Path) -> None:
    def fetch(key: str, limit: int) -> bytes:
        return twin.fetch(key, limit) if "root" in key else b" " * (limit + 1)

    with pytest.raises(Untrusted, match="longer"):
        device(twin, tmp_path, fetch=fetch).refresh()
