"""One publication, all or nothing.

The order makes it so: packs first, then what names them, ``timestamp.json`` last and only if nobody else wrote it
meanwhile. Until that one object is replaced, every client sees the old repository.

What a killed publication leaves behind is harmless but takes room. So each one first writes down what it is going to
create; whoever publishes next finds that note and removes what came of it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from instar.errors import Conflict, InstarError, Misconfigured, NotFound, Unavailable, Untrusted
from instar.model.channel import MAX_JSON as MAX_CHANNELS
from instar.model.channel import Channels
from instar.model.digest import Digest
from instar.model.progress import OnProgress, Phase, Progress, ignore_progress
from instar.model.version import Version
from instar.publish.project import Project
from instar.publish.seen import Seen
from instar.storage.ports import Storage
from instar.system.files import remove_tree
from instar.trust.keys import Signer
from instar.trust.layout import METADATA, Target, channels_path, metadata_key, taken_versions, target_key
from instar.trust.roles import RoleSet

__all__ = ["NOTES", "Session", "local_disk", "publishing", "read_channels", "read_target", "refuse_below_floor"]

NOTES: Final = "publishing/"
"""Prefix of the keys under which a publication writes down what it is going to create."""

TIMESTAMP: Final = metadata_key("timestamp", None)

# Bytes of such a note: some hundred thousand keys at a hundred bytes each.
_MAX_NOTE: Final = 16 << 20
# TUF, 5.3: a root counts from the moment it can be fetched. It is never taken away again.
_ROOT_ENDING: Final = ".root.json"


@dataclass
class Session:
    """A publication under way: what was there when it began, and what it adds.

    Made by :func:`publishing`. Nothing reaches the storage before :meth:`commit`.
    """

    project: Project
    roles: RoleSet
    channels: Channels
    now: datetime
    _seen: str | None
    _before: str | None
    _objects: dict[str, bytes | Path] = field(default_factory=dict)

    def add(self, key: str, source: bytes | Path) -> None:
        """Upload an object named by its content, when the publication is committed."""
        self._objects[key] = source

    def set_channels(self, channels: Channels) -> None:
        """Offer what ``channels`` says."""
        data = channels.to_json()
        path, digest = channels_path(channels.product), Digest.of(data)
        self.roles.set_target(path, size=len(data), digest=digest)
        self.add(target_key(path, digest), data)
        self.channels = channels

    def commit(self, signers: Iterable[Signer], *, progress: OnProgress = ignore_progress) -> bool:
        """Sign what changed and upload everything. False where nothing had changed.

        Raises:
            Conflict: another publisher was faster; nothing that clients see was changed.
            Misconfigured: a key is missing, or the storage cannot be written.
            Unavailable: the storage did not take it.

        """
        storage = self.project.storage
        taken = taken_versions(listed.key for listed in storage.list(METADATA))
        files = self.roles.changes(self.now, signers, taken=taken)
        if not files:
            return False
        *metadata, (last, timestamp) = files
        if last != TIMESTAMP:
            msg = f"{last} must not be uploaded last."
            raise AssertionError(msg)
        objects = {**self._objects, **dict(metadata)}
        new = [key for key in objects if not _exists(storage, key)]
        note = f"{NOTES}{secrets.token_hex(8)}.json"
        document = {"before": self._before, "keys": new}
        storage.create(note, json.dumps(document).encode())
        try:
            _compare(storage, {key: objects[key] for key in objects.keys() - set(new)})
            _upload(storage, {key: objects[key] for key in new}, progress)
            storage.replace(TIMESTAMP, timestamp, expected=self._seen)
        except InstarError:
            # A storage that just failed may fail again; then the next publisher does it.
            with contextlib.suppress(InstarError):
                _settle(storage)
            raise
        Seen(self.project.folder, self.project.settings.storage).remember(taken_versions(key for key, _ in metadata))
        # The repository is the new one already: a note that cannot be removed is no failure.
        with contextlib.suppress(InstarError):
            storage.delete(note)
        return True


@contextlib.contextmanager
def publishing(project: Project) -> Iterator[Session]:
    """Keep other publishers out, clear away what a killed one left, and read the repository.

    Raises:
        Busy: somebody else is publishing.
        NotFound: the storage holds no repository.
        Untrusted: it holds one that the project's root does not vouch for, or an older one than it did before.
        Unavailable, Misconfigured: the storage does not answer, or cannot be written.

    """
    storage = project.storage
    with storage.hold():
        storage.remove_leftovers()
        with local_disk(project.work):
            remove_tree(project.work)
        _settle(storage)
        # Read before the roles: what changes after this line makes the final step fail.
        seen, before = storage.stat(TIMESTAMP).etag, _current(storage)
        roles = project.roles()
        Seen(project.folder, project.settings.storage).judge(roles.published)
        channels = read_channels(project, roles)
        yield Session(project, roles, channels, project.clock.now(), seen, before)


def read_channels(project: Project, roles: RoleSet) -> Channels:
    """Read the project's signed channels file; empty before the first release.

    Raises:
        Untrusted: it is not what was signed.
        Unavailable: it could not be read.

    """
    product = project.settings.product
    target = roles.target(channels_path(product))
    if target is None:
        return Channels(product, project.clock.now(), {})
    data = read_target(project, target, limit=MAX_CHANNELS)
    try:
        return Channels.from_json(data)
    except ValueError as error:
        msg = f"The channels file cannot be used: {error}."
        raise Untrusted(msg, hint="Was it written by a newer instar?") from error


def read_target(project: Project, target: Target, *, limit: int) -> bytes:
    """Read a whole target and compare it with what was signed.

    Raises:
        Untrusted: it is something else.
        Unavailable: it could not be read.

    """
    data = project.fetch(target.key, min(target.size, limit))
    if len(data) != target.size or Digest.of(data) != target.digest:
        msg = f"{target.key} is not what was signed."
        raise Untrusted(msg, hint="Somebody or something changed the storage: restore it before you publish.")
    return data


def refuse_below_floor(session: Session, version: Version) -> None:
    """Refuse to offer what no device would take.

    Raises:
        Misconfigured: the version is below the security floor.

    """
    floor = session.roles.floor(session.project.settings.product)
    if floor and version < Version(floor):
        msg = f"{version} is below the security floor, {floor}: no device would take it."
        raise Misconfigured(msg, hint="Give it a version that is not, or see `instar floor --help`.")


@contextlib.contextmanager
def local_disk(folder: Path) -> Iterator[None]:
    """Translate what the disk says that work is done on."""
    try:
        yield
    except OSError as error:
        msg = f"{folder} cannot be worked in: {error.strerror or error}."
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise Misconfigured(msg, hint="Give yourself access, then try again.") from error
        raise Unavailable(msg, hint="Make room there, then try again.") from error


def _exists(storage: Storage, key: str) -> bool:
    try:
        storage.stat(key)
    except NotFound:
        return False
    return True


def _compare(storage: Storage, objects: dict[str, bytes | Path]) -> None:
    """Take what is there already for what its name says only when it is."""
    for key, source in sorted(objects.items()):
        try:
            storage.create(key, source)
        except Conflict as error:
            msg = f"The storage already holds {key}, but what is in it is not what its name says."
            raise Untrusted(msg, hint="Find out what damaged it, see `instar verify`; then remove it.") from error


def _upload(storage: Storage, objects: dict[str, bytes | Path], progress: OnProgress) -> None:
    sizes = {
        key: len(source) if isinstance(source, bytes) else source.stat().st_size for key, source in objects.items()
    }
    total, done = sum(sizes.values()), 0
    for key, source in objects.items():
        storage.create(key, source)
        done += sizes[key]
        progress(Progress(Phase.UPLOAD, done, total))


def _settle(storage: Storage) -> None:
    """Remove what unfinished publications created. Their notes go last, so that this too can be killed.

    While the timestamp is still the one from before, nobody can need what was not there then. Where it is another
    one, somebody published whom the lock did not keep out, and may use some of it: that is left for `instar prune`.
    """
    for listed in list(storage.list(NOTES)):
        before, keys = _read_note(storage, listed.key)
        if keys and before == _current(storage):
            for key in keys:
                if key != TIMESTAMP and not key.endswith(_ROOT_ENDING):
                    storage.delete(key)
        storage.delete(listed.key)


def _current(storage: Storage) -> str | None:
    try:
        return Digest.of(storage.read(TIMESTAMP, limit=_MAX_NOTE)).hex
    except NotFound:
        return None


def _read_note(storage: Storage, key: str) -> tuple[str | None, list[str]]:
    try:
        document = json.loads(storage.read(key, limit=_MAX_NOTE))
        return str(document["before"]), [str(name) for name in document["keys"]]
    except (ValueError, TypeError, KeyError):
        # Not ours, or from another version: nothing can be concluded from it. `instar prune` finds what is unused.
        return None, []
