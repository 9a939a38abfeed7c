"""A signed repository on any storage, and what somebody can do to it who holds the storage, or stole a key.

Everything here is really signed and really read: a test hands ``twin.fetch`` (or the storage, behind a web server) to
the code under test, and attacks in between.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets, Timestamp

from instar.model.digest import Digest
from instar.storage.memory import MemoryStorage
from instar.storage.ports import Storage
from instar.trust.ceremony import first_files
from instar.trust.layout import METADATA, metadata_key, taken_versions, target_key
from instar.trust.roles import Lifetimes, RoleSet

__all__ = ["TwinRepository", "current_key", "forge", "make_key", "restore", "saved", "sign_as", "swap_target"]

# Bytes of any object that these tests make.
_LIMIT: Final = 64 * 1024 * 1024


def make_key() -> CryptoSigner:
    """Make a key that nobody else has."""
    return CryptoSigner.generate_ed25519()


def saved(storage: Storage) -> dict[str, bytes]:
    """Copy all objects, for :func:`restore`: what an attacker does who wants to show an old state later."""
    return {str(item.key): storage.read(item.key, limit=_LIMIT) for item in storage.list()}


def restore(storage: Storage, objects: dict[str, bytes]) -> None:
    """Make the storage hold exactly ``objects``."""
    for item in storage.list():
        if item.key not in objects:
            storage.delete(item.key)
    for key, data in objects.items():
        storage.write(key, data)


def forge(
    storage: Storage,
    role: str,
    change: Callable[[Any], None],
    *,
    signers: Sequence[Signer],
    link_with: Sequence[Signer] = (),
) -> None:
    """Change a role's signed part and sign it with whatever keys the attacker has; the real signatures go.

    Args:
        storage: the repository's.
        role: its name; the newest version that the repository uses is changed.
        change: gets the role as tuf's ``Signed``. Raise its ``version`` to make a new file instead.
        signers: the keys that sign it; none for a role without signatures.
        link_with: stolen online keys, with which snapshot and timestamp are brought to name the new version.

    """
    old = current_key(storage, role)
    metadata: Metadata[Any] = Metadata.from_bytes(storage.read(old, limit=_LIMIT))
    change(metadata.signed)
    version = None if role == Timestamp.type else metadata.signed.version
    storage.write(metadata_key(role, version), sign_as(metadata, signers))
    if not link_with:
        return
    if role == Snapshot.type:
        forge(
            storage,
            Timestamp.type,
            lambda timestamp: _link_snapshot(timestamp, metadata.signed.version),
            signers=link_with,
        )
    elif role not in {"root", Timestamp.type}:
        forge(
            storage,
            Snapshot.type,
            lambda snapshot: _link_role(snapshot, role, metadata.signed.version),
            signers=link_with,
            link_with=link_with,
        )


def sign_as(metadata: Metadata[Any], signers: Sequence[Signer]) -> bytes:
    """Serialise metadata with exactly these signatures, whether they suffice or not."""
    metadata.signatures.clear()
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


def current_key(storage: Storage, role: str) -> str:
    """Give the key of a role's file as the repository's timestamp, snapshot and roots lead to it."""
    if role == Timestamp.type:
        return metadata_key(role, None)
    if role == "root":
        return metadata_key(role, taken_versions(str(item.key) for item in storage.list(METADATA))[role])
    timestamp = json.loads(storage.read(metadata_key(Timestamp.type, None), limit=_LIMIT))["signed"]
    version = timestamp["meta"]["snapshot.json"]["version"]
    if role != Snapshot.type:
        snapshot = json.loads(storage.read(metadata_key(Snapshot.type, version), limit=_LIMIT))["signed"]
        version = snapshot["meta"][f"{role}.json"]["version"]
    return metadata_key(role, version)


def _link_snapshot(timestamp: Timestamp, version: int) -> None:
    timestamp.snapshot_meta = MetaFile(version)
    timestamp.version += 1


def _link_role(snapshot: Snapshot, role: str, version: int) -> None:
    snapshot.meta[f"{role}.json"] = MetaFile(version)
    snapshot.version += 1


class TwinRepository:
    """A repository with one product, its keys at hand.

    Args:
        product: the product's name.
        storage: where it lies; in memory by default.
        now: when it is signed; the machine's time by default, by which tuf judges expiry.
        lifetimes: how long signatures count.

    Attributes:
        owner, online: the private keys.
        root: the first root, as an app would carry it.

    """

    def __init__(
        self,
        product: str = "app",
        *,
        storage: Storage | None = None,
        now: datetime | None = None,
        lifetimes: Lifetimes | None = None,
    ) -> None:
        self.product = product
        self.storage = MemoryStorage() if storage is None else storage
        self.owner, self.online = make_key(), make_key()
        self._lifetimes = lifetimes
        self._now = now
        files = first_files([product], owner=[self.owner], online=[self.online], now=self.now, lifetimes=lifetimes)
        self._upload(files)
        self.root = dict(files)[metadata_key("root", 1)]

    @property
    def now(self) -> datetime:
        """The publisher's time."""
        return datetime.now(UTC) if self._now is None else self._now

    def fetch(self, key: str, limit: int) -> bytes:
        """Read an object, as :class:`~instar.trust.layout.Fetch` wants it."""
        return self.storage.read(key, limit=limit)

    def load(self) -> RoleSet:
        """Read the roles as the publisher does."""
        return RoleSet.load(self.fetch, root=self.root, lifetimes=self._lifetimes)

    @contextmanager
    def edit(self, *signers: Signer, now: datetime | None = None) -> Iterator[RoleSet]:
        """Load the roles; at the end of a ``with`` block sign (with all keys unless some are given) and upload."""
        roles = self.load()
        yield roles
        taken = taken_versions(str(item.key) for item in self.storage.list(METADATA))
        self._upload(roles.changes(now or self.now, signers or (self.owner, self.online), taken=taken))

    def put(self, path: str, content: bytes, custom: dict[str, Any] | None = None) -> None:
        """Publish a target with its content."""
        digest = Digest.of(content)
        self.storage.write(target_key(path, digest), content)
        with self.edit() as roles:
            roles.set_target(path, size=len(content), digest=digest, custom=custom)

    def forge(self, role: str, change: Callable[[Any], None], *, signers: Sequence[Signer], link: bool = False) -> None:
        """Change a role as :func:`forge` does; with ``link`` the attacker holds the online key too."""
        forge(self.storage, role, change, signers=signers, link_with=[self.online] if link else [])

    def _upload(self, files: list[tuple[str, bytes]]) -> None:
        for key, data in files:
            self.storage.write(key, data)


def swap_target(path: str, content: bytes) -> Callable[[Targets], None]:
    """Make a change for :func:`forge`: a new version of the role that says other content belongs to ``path``."""

    def change(targets: Targets) -> None:
        targets.version += 1
        digest = Digest.of(content)
        targets.targets[path].length, targets.targets[path].hashes = len(content), {"sha256": digest.hex}

    return change
