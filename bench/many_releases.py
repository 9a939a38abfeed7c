"""Fills a repository with thousands of releases, the way that many years of publishing would have.

Through instar's own library, not its command line: ten thousand runs of a program would take hours. The manifests are
tiny but real, with custom fields of the size that real ones have, because devices download those.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from bench.instar_side import PLATFORM, PRODUCT, Device, Publisher
from bench.serving import serving
from instar.content.manifests import compress_manifest
from instar.model.channel import Channels, Entry
from instar.model.digest import Digest
from instar.model.manifest import Manifest
from instar.model.names import Name, ProductName
from instar.model.version import Version
from instar.publish.channels import trim
from instar.storage import Key, LocalStorage
from instar.trust.keys import open_signer
from instar.trust.layout import channels_path, manifest_path, target_key
from instar.trust.roles import RoleSet

_CHANNEL = Name("stable")


def measure(trees: list[Path], folder: Path, *, releases: int) -> dict[str, object]:
    """What publishing and looking costs when the repository holds `releases` others.

    The device is up to date, then one more release appears: the check that finds it fetches the metadata anew.
    """
    publisher = Publisher(folder / "publisher")
    publisher.create()
    publisher.release(trees[0], f"{releases}.0.0")
    _fill(publisher, releases)
    with serving(publisher.repository) as server:
        device = Device(folder / "device", publisher, server)
        install = device.install()
        nothing = device.check()
        publish = publisher.release(trees[1], f"{releases + 1}.0.0").as_json()
        return {
            "releases": releases,
            "publish": publish,
            "install": install,
            "check_nothing_new": nothing,
            "check_update": device.check(),
        }


def _fill(publisher: Publisher, releases: int) -> None:
    repository = publisher.repository

    storage = LocalStorage(repository)

    def fetch(key: str, limit: int) -> bytes:
        return storage.read(Key(key), limit=limit)

    roles = RoleSet.load(fetch, root=(repository / "metadata" / "1.root.json").read_bytes())
    product, platform = ProductName(PRODUCT), Name(PLATFORM)
    versions = [Version(f"{n}.0.0") for n in range(releases)]
    for version in versions:
        path = manifest_path(product, platform, version)
        document = Manifest(product, version, platform, files=(), notes=f"What is new in {version}").to_json()
        frame = compress_manifest(document)
        digest, json_digest = Digest.of(frame), Digest.of(document)
        _store(repository, target_key(path, digest), frame)
        deltas = [{"from": json_digest.hex, "sha256": digest.hex, "size": len(frame)} for _ in range(3)]
        custom = {"json": {"sha256": json_digest.hex, "size": len(document)}, "deltas": deltas}
        roles.set_target(path, size=len(frame), digest=digest, custom=custom)
    _list_in_channel(roles, repository, versions)
    signers = [open_signer(f"file:keys/{name}.pem", folder=publisher.folder) for name in ("owner", "online")]
    for key, data in roles.changes(datetime.now(UTC), signers):
        _store(repository, key, data)


def _list_in_channel(roles: RoleSet, repository: Path, versions: list[Version]) -> None:
    """Put the releases before the one that is there, as far back as a channel reaches."""
    path = channels_path(PRODUCT)
    target = roles.target(path)
    assert target is not None
    channels = Channels.from_json((repository / target.key).read_bytes())
    now = datetime.now(UTC)
    entries = trim([*map(Entry, versions), *channels.of(_CHANNEL, PLATFORM)], now)
    data = Channels(channels.product, now, {_CHANNEL: {Name(PLATFORM): entries}}).to_json()
    _store(repository, target_key(path, Digest.of(data)), data)
    roles.set_target(path, size=len(data), digest=Digest.of(data))


def _store(repository: Path, key: str, data: bytes) -> None:
    path = repository / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
