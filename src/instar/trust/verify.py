"""The device's half of trust: which targets does the owner of ``root`` vouch for, now?

python-tuf judges (TUF specification, section 5: signatures, thresholds, versions, expiry by the machine's clock). Its
``Updater`` is held here, and given what it lacks: a cache that survives a power cut and heals, one family per error,
an offline mode, bounds that signed metadata cannot raise, and expiry by a time that a reset clock cannot turn back.

This module does not lock the cache (the caller holds the installation's lock) and does not fetch targets: it says
where one is, how long, and with which digest.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import weakref
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, cast
from urllib.parse import quote

from tuf.api.exceptions import (
    DownloadHTTPError,
    ExpiredMetadataError,
    RepositoryError,
)
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from instar.errors import Expired, InstallFailed, InstarError, Misconfigured, NotFound, Unavailable, Untrusted
from instar.model.digest import Digest
from instar.system import files
from instar.system.clock import Clock
from instar.trust.layout import (
    MAX_ROOT,
    MAX_SNAPSHOT,
    MAX_TARGETS,
    MAX_TIMESTAMP,
    METADATA,
    SIGNED_AT,
    TIME_FORMAT,
    Fetch,
    Target,
    parse_time,
    role_bound,
    role_of,
    target_key,
)

__all__ = ["Fetch", "Target", "TrustedMetadata"]

MAX_ROOT_ROTATIONS: Final = 1024
"""Root versions above the app's own. Cached ones count too, so this bounds the life of an app that never changes its
built-in root: at one new root a week, twenty years."""

MAX_DELEGATIONS: Final = 16
"""Roles visited in one search. instar's own layout needs three: targets, product, hash bin."""

_TOP_LEVEL: Final = (Root.type, Timestamp.type, Snapshot.type, Targets.type)

# Not *.json: the cache holds role files under their own names, and nothing that could be taken for one.
_TIME_RECORD: Final = "trusted-time"
# Where tuf keeps all roots, each with its number; root.json is a link to the newest.
_HISTORY: Final = "root_history"
_MAX_TIME_RECORD: Final = 4096
_HTTP_NOT_FOUND: Final = 404
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)


class TrustedMetadata:
    """The metadata of one repository, as far as it can be believed.

    Call :meth:`refresh` (network) or :meth:`load` (cache only), then :meth:`target`. Either may be called again.

    Args:
        folder: the cache, made at need; nobody else writes there. Locking is the caller's.
        root: the trusted root metadata that came with the app. Nothing in the cache can lower trust below it.
        fetch: reads the repository's objects.
        clock: the time of day, which may be wrong.
        not_before: a moment that certainly is past, like the build of the app.

    """

    def __init__(
        self,
        folder: Path,
        *,
        root: bytes,
        fetch: Fetch,
        clock: Clock,
        not_before: datetime | None = None,
    ) -> None:
        self._folder = folder
        self._cache = folder  # where tuf works: a copy, while there is no network
        self._noted = _BEGINNING
        self._bootstrap = root
        self._fetch = fetch
        self._clock = clock
        self._not_before = not_before or _BEGINNING
        self._updater: Updater | None = None
        self._fetcher = _Fetcher(fetch)
        self._offline = False
        self._expires: dict[str, datetime] = {}

    def refresh(self) -> None:
        """Fetch what is new, check all of it, and make it durable.

        Raises:
            Expired: the newest metadata that could be had is too old; says since when.
            Untrusted: what was served is not what the owner signed, or is older than what was seen before.
            Unavailable: the repository did not answer, or lacks a file.
            Misconfigured: ``root`` itself is not root metadata.
            InstallFailed: the cache cannot be written.

        """
        self._offline = False
        self._cache, self._noted = self._folder, _BEGINNING
        self._fetcher = _Fetcher(self._fetch)
        with self._translated():
            try:
                self._tidy()
                self._start()
            except BaseException:
                # A new root or a newer timestamp counts even if something after it failed.
                with contextlib.suppress(OSError):
                    self._make_durable(self._fetcher.fetched)
                raise
            self._make_durable(self._fetcher.fetched)
            self._record_time(max(self.now, self._signed_at()))

    def load(self) -> None:
        """Believe what the cache holds, without any network, as long as it is valid. It may be on a read-only disk.

        Raises:
            Unavailable: the cache does not hold all of it.
            Expired: it is too old; says since when.
            Misconfigured: as for :meth:`refresh`.
            InstallFailed: there is no room for a copy in the system's folder for temporary files.

        """
        self._offline = True
        self._fetcher = _Fetcher(self._fetch_cached)
        with self._translated():
            # tuf writes whatever it does, and the disk may be read-only.
            self._cache, self._noted = self._copy(), _BEGINNING
            self._start()

    def target(self, path: str) -> Target | None:
        """Find the target ``path`` in the most trusted role that vouches for it, or None when none does.

        Raises:
            Expired, Untrusted, Unavailable, InstallFailed: as for :meth:`refresh`; roles are fetched when asked for.
            RuntimeError: the last :meth:`refresh` or :meth:`load` did not succeed, or there was none.

        """
        updater = self._ready()
        before = set(self._fetcher.fetched)
        with self._translated():
            found = updater.get_targetinfo(path)
            self._judge(self._search(path))
            if not self._offline:
                self._make_durable(self._fetcher.fetched.keys() - before)
            return None if found is None else self._as_target(found)

    def note_time(self, moment: datetime) -> None:
        """Remember that ``moment`` is past, because something says so that this metadata vouches for.

        A moment at which the metadata itself would be expired is not believed: a publisher's clock that was wrong
        once must not end updates for ever.

        Raises:
            InstallFailed: the cache cannot be written.
            RuntimeError: the last :meth:`refresh` or :meth:`load` did not succeed, or there was none.

        """
        if not max(self._noted, self._recorded_time()) < moment < self.expires:
            return
        self._noted = moment
        with self._translated():
            try:
                self._record_time(moment)
            except OSError:
                # Whoever only looks may do so on a read-only disk.
                if not self._offline:
                    raise

    @property
    def expires(self) -> datetime:
        """When the first of the roles that were needed so far ends.

        Raises:
            RuntimeError: the last :meth:`refresh` or :meth:`load` did not succeed, or there was none.

        """
        self._ready()
        return min(self._expires.values())

    @property
    def now(self) -> datetime:
        """The time by which expiry is judged: the clock, but never before a moment that is known to be past."""
        return max(self._clock.now(), self._not_before, self._noted, self._recorded_time())

    def _ready(self) -> Updater:
        if self._updater is None:
            msg = "neither refresh() nor load() has succeeded"
            raise RuntimeError(msg)
        return self._updater

    def _start(self) -> None:
        self._updater = None
        self._expires = {}
        try:
            # tuf's updater refreshes once in its life, so each refresh has its own.
            updater = Updater(
                str(self._cache),
                METADATA,
                fetcher=self._fetcher,
                config=UpdaterConfig(
                    max_root_rotations=MAX_ROOT_ROTATIONS,
                    max_delegations=MAX_DELEGATIONS,
                    root_max_length=MAX_ROOT,
                    timestamp_max_length=MAX_TIMESTAMP,
                    snapshot_max_length=MAX_SNAPSHOT,
                    targets_max_length=MAX_TARGETS,
                ),
                bootstrap=self._bootstrap,
            )
        except (RepositoryError, ValueError) as error:
            msg = "The trusted root that the app was given is not valid root metadata."
            raise Misconfigured(msg, hint="Use the root.json that the publisher made.") from error
        updater.refresh()
        self._judge(_TOP_LEVEL)
        self._updater = updater

    def _tidy(self) -> None:
        """Make the cache a folder that tuf can work in. What is damaged goes, and is fetched again.

        Content is not judged here: tuf checks every signature of what it reads from its cache, but it reads files of
        any length, and stumbles over folders where it expects files.
        """
        history = self._folder / _HISTORY
        if history.is_symlink() or (history.exists() and not history.is_dir()):
            history.unlink()
        files.make_folder(history)
        for path in (*self._folder.iterdir(), *history.iterdir()):
            # How tuf's temporary files begin and ours end; one is left when the process dies while it writes.
            leftover = path.suffix != ".json" and (path.name.startswith("tmp") or path.suffix == ".tmp")
            if path == history or path == self._folder / _TIME_RECORD:
                continue
            if leftover or not path.is_file() or path.stat().st_size > role_bound(role_of(path.name)):
                files.remove_tree(path)

    def _copy(self) -> Path:
        """Copy the cache, as far as it is a cache, to where tuf can write; it goes when this object does."""
        copy = Path(tempfile.mkdtemp(prefix="instar-"))
        weakref.finalize(self, files.remove_tree, copy)
        for folder, to in ((self._folder, copy), (self._folder / _HISTORY, copy / _HISTORY)):
            to.mkdir(exist_ok=True)
            for path in filter(Path.is_file, folder.glob("*.json")):
                # What is too long is damaged; what is missing then will be called so.
                with contextlib.suppress(ValueError):
                    (to / path.name).write_bytes(files.read_bounded(path, role_bound(role_of(path.name))))
        return copy

    def _make_durable(self, roles: Collection[str]) -> None:
        """Bring what was fetched to the disk itself: tuf replaces files in one step, but does not wait for the disk."""
        for role in roles:
            if role == Root.type:
                files.sync_tree(self._folder / _HISTORY)
            elif (path := self._file(role)).is_file():
                with path.open("rb+") as file:
                    files.sync_file(file)
        if roles:
            files.sync_folder(self._folder)

    def _judge(self, roles: tuple[str, ...]) -> None:
        """Judge the loaded roles by our own time: tuf asks the machine's clock, which may have been reset."""
        dates = {role: self._cached(role).expires for role in roles}
        now = max(self.now, self._signed_at())
        for role, since in dates.items():
            if now >= since:
                self._updater = None
                raise _expired(role, since)
        self._expires.update(dates)

    def _blame(self) -> Expired:
        """Find the role that tuf called expired: it takes them in this order and stops at the first.

        Its signature was checked before its date, so what was fetched can be quoted although it was not kept.
        """
        found: dict[str, datetime] = {}
        for role in (*_TOP_LEVEL, *self._fetcher.fetched):
            with contextlib.suppress(OSError, RepositoryError, ValueError):
                data = self._fetcher.fetched.get(role)
                found[role] = (self._cached(role) if data is None else _parse(data)).expires
        now = self.now
        for role, since in found.items():
            if now >= since:
                return _expired(role, since)
        # The machine's clock and ours differ: then the role that ends first is the one.
        return _expired(*min(found.items(), key=lambda item: item[1]))

    def _file(self, role: str) -> Path:
        return self._cache / f"{quote(role, '')}.json"

    def _cached(self, role: str) -> Signed:
        """Read a role that tuf has accepted: its cache holds what it verified, byte for byte."""
        data = files.read_bounded(self._file(role), role_bound(role))
        return _parse(data)

    def _search(self, path: str) -> tuple[str, ...]:
        """Name the roles that a search for ``path`` visits, in order (TUF specification, 5.6.7)."""
        to_visit: list[str] = [Targets.type]
        visited: list[str] = []
        while to_visit and len(visited) <= MAX_DELEGATIONS:
            role = to_visit.pop()
            if role in visited:
                continue
            visited.append(role)
            signed = self._cached(role)
            if not isinstance(signed, Targets) or path in signed.targets:
                break
            children = []
            for child, terminating in signed.delegations.get_roles_for_target(path) if signed.delegations else ():
                children.append(child)
                if terminating:
                    to_visit = []
                    break
            to_visit.extend(reversed(children))
        return tuple(visited)

    def _as_target(self, found: TargetFile) -> Target:
        custom = found.custom or {}
        if not isinstance(custom, dict) or "sha256" not in found.hashes:
            msg = f"The signed entry of {found.path} is none that instar understands."
            raise Untrusted(msg)
        digest = Digest.parse(found.hashes["sha256"])
        root = self._cached(Root.type)
        consistent = isinstance(root, Root) and bool(root.consistent_snapshot)
        key = target_key(found.path, digest, consistent_snapshot=consistent)
        return Target(found.path, key, found.length, digest, custom)

    def _signed_at(self) -> datetime:
        return parse_time(self._cached(Timestamp.type).unrecognized_fields.get(SIGNED_AT)) or _BEGINNING

    def _recorded_time(self) -> datetime:
        """Give the newest moment that trusted metadata proved to be past.

        It counts only as long as the online keys are the same. Whoever steals one can sign a time in the far future,
        and a new root with other keys must end that too (as TUF, 5.3.11, has it for version numbers).
        """
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RepositoryError):
            record = json.loads(files.read_bounded(self._folder / _TIME_RECORD, _MAX_TIME_RECORD))
            if record["keys"] == self._online_keys():
                return parse_time(record["time"]) or _BEGINNING
        return _BEGINNING

    def _record_time(self, moment: datetime) -> None:
        # Rounded down: a moment that has not come yet must not be recorded as past.
        record = {"keys": self._online_keys(), "time": moment.astimezone(UTC).strftime(TIME_FORMAT)}
        files.write_atomic(self._folder / _TIME_RECORD, json.dumps(record).encode())

    def _online_keys(self) -> list[str]:
        root = self._cached(Root.type)
        return sorted(root.roles[Timestamp.type].keyids) if isinstance(root, Root) else []

    def _fetch_cached(self, key: str, limit: int) -> bytes:
        """Play a repository that has nothing new: no next root, and of each role what is in the cache."""
        role = role_of(key)
        if role != Root.type:
            with contextlib.suppress(OSError, ValueError):
                return files.read_bounded(self._file(role), limit)
        msg = f"The {role} metadata is not in the cache."
        raise NotFound(msg, hint="Connect to the repository once.")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn whatever tuf raises into the family that tells the caller what to do."""
        try:
            yield
        except InstarError:
            raise
        except ExpiredMetadataError as error:
            raise self._blame() from error
        except DownloadHTTPError as error:
            # The only one that our own fetcher makes, out of the error that says it better.
            raise (error.__cause__ if isinstance(error.__cause__, NotFound) else NotFound(f"{error}.")) from error
        except OSError as error:
            msg = f"The metadata cache in {self._folder} could not be used: {error.strerror or error}."
            raise InstallFailed(
                msg, hint="Make room on the disk, or give this user the right to write there."
            ) from error
        except Exception as error:  # whatever tuf and its parsers stumble over is not what an honest publisher signs
            if self._offline:
                # A refresh that stopped half-way, or a damaged disk: nothing that an attacker has said.
                msg = "The metadata in the cache is not complete."
                raise Unavailable(msg, hint="Connect to the repository once.") from error
            msg = f"The repository's metadata cannot be trusted: {error}."
            raise Untrusted(msg, hint="Nothing was changed. Tell the publisher if it stays so.") from error


class _Fetcher(FetcherInterface):
    """Hands tuf's requests to a :class:`Fetch`, and keeps the bounds whatever the metadata asks for.

    A length in signed metadata replaces tuf's own bound, so a stolen online key could ask for any amount of memory.
    """

    def __init__(self, read: Fetch) -> None:
        self._read = read
        self.fetched: dict[str, bytes] = {}

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Read one role's file; NotFound becomes what tuf takes for the end of the roots."""
        role = role_of(url)
        limit = min(max_length, role_bound(role))
        try:
            data = self._read(url, limit)
        except NotFound as error:
            raise DownloadHTTPError(error.message, _HTTP_NOT_FOUND) from error
        except OSError as error:
            msg = f"{url} could not be fetched: {error}."
            raise Unavailable(msg, hint="Try again later.") from error
        if len(data) > limit:
            msg = f"{url} is longer than the {limit} bytes it may have."
            raise Untrusted(msg)
        self.fetched[role] = data
        return data

    def _fetch(self, url: str) -> Iterator[bytes]:
        # tuf's way to targets, which instar fetches itself.
        raise NotImplementedError(url)


def _parse(data: bytes) -> Signed:
    return cast("Signed", Metadata.from_bytes(data).signed)


def _expired(role: str, since: datetime) -> Expired:
    msg = f"The repository's {role} metadata ran out on {since:%Y-%m-%d at %H:%M} UTC."
    hint = "What is installed stays as it is. The publisher must renew the metadata; check this machine's clock too."
    return Expired(msg, since=since, hint=hint)
