"""What a device believes of a repository: a real one, in memory, really signed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Timestamp

from instar.client.config import Config
from instar.client.session import Session, read_verified
from instar.errors import NotFound, Unavailable, Untrusted
from instar.model.digest import Digest
from instar.model.version import Version
from instar.storage import HttpReader, MemoryStorage, MirrorReader
from instar.testing.clock import FakeClock
from instar.testing.http import FaultyServer, Status
from instar.testing.releases import Bundle, Releases
from instar.testing.repository import TwinRepository
from instar.trust.layout import floor_path

# Some hundred files: a manifest worth a difference.
MANY = {f"lib/module{n:03}.py": f"print({n})\n".encode() * 3 for n in range(200)}


@pytest.fixture
def releases() -> Releases:
    made = Releases(TwinRepository())
    made.release("1.0", Bundle(MANY))
    made.release("1.1", Bundle({**MANY, "lib/module000.py": b"print('new')\n"}))
    return made


@pytest.fixture
def config(releases: Releases, tmp_path: Path) -> Config:
    return Config("app", "https://x.example/", releases.repository.root, tmp_path / "app")


@pytest.fixture
def server(releases: Releases) -> Iterator[FaultyServer]:
    with FaultyServer(releases.repository.storage) as running:
        yield running


def test_a_manifest_travels_as_a_difference_when_an_older_one_is_here(
    releases: Releases, config: Config, tmp_path: Path, server: FaultyServer
) -> None:
    from instar.client.connect import connect

    with connect(replace(config, url=server.url), None) as reader:
        session = Session(config, tmp_path / "cache", reader)
        session.refresh()
        assert session.manifest(Version("1.0")) == releases.manifests["1.0"]
        before, first = reader.traffic, len(server.received)
        assert session.manifest(Version("1.1")) == releases.manifests["1.1"]
        assert [request.key.rpartition(".")[2] for request in server.received[first:]] == ["delta"]
        assert (reader.traffic - before).content < 500
        # And once it is here, it costs nothing at all.
        first = len(server.received)
        assert session.manifest(Version("1.1")) == releases.manifests["1.1"]
        assert server.received[first:] == []


def test_a_broken_difference_is_replaced_by_the_whole_manifest(
    releases: Releases, config: Config, tmp_path: Path
) -> None:
    storage = releases.repository.storage
    session = Session(config, tmp_path / "cache", storage)
    session.refresh()
    session.manifest(Version("1.0"))
    for item in storage.list("packs/"):
        if item.key.endswith(".delta"):
            storage.write(item.key, b"?" * item.size)
    assert session.manifest(Version("1.1")) == releases.manifests["1.1"]


def test_a_damaged_manifest_in_the_cache_is_fetched_again(releases: Releases, config: Config, tmp_path: Path) -> None:
    session = Session(config, tmp_path / "cache", releases.repository.storage)
    session.refresh()
    session.manifest(Version("1.0"))
    (cached,) = (tmp_path / "cache/manifests").iterdir()
    cached.write_bytes(b"{}")
    assert session.manifest(Version("1.0")) == releases.manifests["1.0"]
    assert session.manifests.of_tree(releases.manifests["1.0"].tree_digest) == releases.manifests["1.0"]


def test_a_look_at_nothing_new_costs_two_requests_and_less_than_two_kilobytes(
    releases: Releases, config: Config, tmp_path: Path, server: FaultyServer
) -> None:
    from instar.client.connect import connect

    with connect(replace(config, url=server.url), None) as reader:
        session = Session(config, tmp_path / "cache", reader)
        session.refresh()
        session.channels()
        session.floor()
        before, first = reader.traffic, len(server.received)
        again = Session(config, tmp_path / "cache", reader)
        again.refresh()
        again.channels()
        again.floor()
        assert [request.key for request in server.received[first:]] == [
            "metadata/2.root.json",
            "metadata/timestamp.json",
        ]
        assert (reader.traffic - before).requests == 2
        assert (reader.traffic - before).received < 2000


def test_a_mirror_that_serves_something_else_costs_a_try_not_the_update(
    releases: Releases, config: Config, tmp_path: Path
) -> None:
    evil = TwinRepository()
    reader = MirrorReader([evil.storage, MemoryStorage(), releases.repository.storage])
    session = Session(config, tmp_path / "cache", reader)
    session.refresh()
    assert session.channels() == replace(releases.channels(), published=session.channels().published)
    assert session.manifest(Version("1.1")) == releases.manifests["1.1"]


def test_a_mirror_that_asks_who_we_are_costs_a_try_not_the_update(
    releases: Releases, tmp_path: Path, config: Config, server: FaultyServer
) -> None:
    server.fault(Status(401), times=None)
    with HttpReader(server.url) as refusing:
        session = Session(config, tmp_path / "cache", MirrorReader([refusing, releases.repository.storage]))
        session.refresh()
        assert session.channels().product == "app"


def test_content_is_taken_from_the_mirror_that_has_what_was_signed() -> None:
    good, bad = MemoryStorage(), MemoryStorage()
    good.write("a", b"right")
    bad.write("a", b"wrong")
    digest = Digest.of(b"right")
    assert read_verified(MirrorReader([bad, good]), "a", digest, 5) == b"right"
    assert read_verified(good, "a", digest, 5) == b"right"
    with pytest.raises(Untrusted):
        read_verified(bad, "a", digest, 5)
    with pytest.raises(Untrusted):
        read_verified(good, "a", digest, 4)
    with pytest.raises(NotFound):
        read_verified(MemoryStorage(), "a", digest, 5)


def test_a_product_that_is_not_there_is_said(releases: Releases, config: Config, tmp_path: Path) -> None:
    session = Session(replace(config, product="other"), tmp_path / "cache", releases.repository.storage)
    session.refresh()
    with pytest.raises(Unavailable, match="does not know the product other"):
        session.channels()


def test_a_release_that_the_owner_never_signed_is_not_believed(
    releases: Releases, config: Config, tmp_path: Path
) -> None:
    session = Session(config, tmp_path / "cache", releases.repository.storage)
    session.refresh()
    with pytest.raises(Untrusted, match=r"No release 6\.6\.6"):
        session.manifest(Version("6.6.6"))


def test_the_manifest_of_one_release_is_not_taken_for_another(
    releases: Releases, config: Config, tmp_path: Path
) -> None:
    releases.publish_manifest("2.0", releases.manifests["1.0"].to_json())
    session = Session(config, tmp_path / "cache", releases.repository.storage)
    session.refresh()
    with pytest.raises(Untrusted, match=r"The manifest of 2\.0 is that of app 1\.0"):
        session.manifest(Version("2.0"))


def test_the_floor_is_what_the_owner_says_and_what_cannot_be_read_stops_everything(
    releases: Releases, config: Config, tmp_path: Path
) -> None:
    session = Session(config, tmp_path / "cache", releases.repository.storage)
    session.refresh()
    assert session.floor() is None
    with releases.repository.edit() as roles:
        roles.set_floor("app", "1.1")
    session.refresh()
    assert session.floor() == Version("1.1")
    with releases.repository.edit() as roles:
        roles.set_target(floor_path("app"), size=0, digest=Digest.of(b""), custom={"floor": "as high as you like"})
    session.refresh()
    with pytest.raises(Untrusted, match="security floor"):
        session.floor()


def test_what_is_cached_is_believed_without_a_network_until_it_ends(
    releases: Releases, config: Config, tmp_path: Path
) -> None:
    Session(config, tmp_path / "cache", releases.repository.storage).refresh()
    offline = Session(config, tmp_path / "cache", MemoryStorage())
    with pytest.raises(Unavailable):
        offline.refresh()
    offline.load()
    assert offline.expires > datetime.now(UTC)
    with pytest.raises(Unavailable):
        offline.channels()  # it was never asked for


def test_a_clock_in_1970_learns_the_time_from_what_is_signed(
    releases: Releases, config: Config, tmp_path: Path
) -> None:
    started = datetime.now(UTC)
    clock = FakeClock(datetime(1970, 1, 1, tzinfo=UTC))
    session = Session(replace(config, clock=clock), tmp_path / "cache", releases.repository.storage)
    session.refresh()
    session.channels()
    assert started - timedelta(minutes=2) < session.now <= datetime.now(UTC)


def test_the_channels_file_tells_the_time_where_the_timestamp_does_not(
    releases: Releases, config: Config, tmp_path: Path
) -> None:
    def forget(timestamp: Timestamp) -> None:
        timestamp.version += 1
        timestamp.unrecognized_fields.clear()

    releases.repository.forge("timestamp", forget, signers=[releases.repository.online])
    clock = FakeClock(datetime(1970, 1, 1, tzinfo=UTC))
    session = Session(replace(config, clock=clock), tmp_path / "cache", releases.repository.storage)
    session.refresh()
    assert session.now.year == 1970
    published = session.channels().published
    assert session.now == published
