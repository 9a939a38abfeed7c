"""From "is there something new?" to a complete, verified tree on this disk, ready to be switched to."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal

from instar.client.choice import choose
from instar.client.config import Config
from instar.client.connect import connect
from instar.client.here import Here, disk_errors, open_here
from instar.client.relaunch import own_command, relaunch_command
from instar.client.session import Session
from instar.content.downloads import Downloads, never_cancelled
from instar.content.rebuild import Source, make_tree, take_inventory
from instar.errors import Conflict, InstallFailed, InstarError, Misconfigured, Unavailable, Untrusted
from instar.install import Installed, Status, Switched
from instar.model.channel import Entry
from instar.model.digest import Digest
from instar.model.manifest import Manifest
from instar.model.progress import OnProgress, ignore_progress
from instar.model.version import Version
from instar.policy.route import plan_route
from instar.policy.select import Reason
from instar.storage import Reader

__all__ = ["Direction", "Finding", "Outcome", "Staged", "Update", "Updater", "free_space"]

# A file takes whole blocks on the disk, and its name takes some too.
_PER_FILE: Final = 4096


class Direction(StrEnum):
    """Where an update leads. The values are shown to people."""

    FIRST = "first install"
    UP = "newer"
    DOWN = "older"


class Outcome(StrEnum):
    """How an installation ended. The values are shown to people."""

    SELECTED = "it runs from the next start on"
    AT_NEXT_START = "it will be selected when the app starts next"
    WHEN_APP_EXITS = "it will be selected as soon as the app exits"


@dataclass(frozen=True)
class Update:
    """A release that this device may install now.

    ``current`` is the version it leaves, None for a first install. ``notes`` are the publisher's, as written;
    ``meta`` is what else was published with it. ``checkpoint`` is the number of the checkpoint that it introduces, 0
    for none: such a release cannot be skipped. ``reason`` says why this one. ``download_size`` is the number of bytes
    still to fetch, ``full_size`` what a device with nothing would fetch, ``installed_size`` what the finished tree
    takes. ``download_by`` splits the bytes to fetch by what they are for, ``made_by`` the bytes of the finished tree
    by how they are made.
    """

    version: Version
    current: Version | None
    direction: Direction
    reason: Reason
    notes: str
    meta: Mapping[str, str]
    checkpoint: int
    download_size: int
    full_size: int
    installed_size: int
    download_by: Mapping[str, int]
    made_by: Mapping[str, int]
    requests: int
    release: Installed = field(repr=False)
    base: Installed | None = field(repr=False)
    manifest: Manifest = field(repr=False)


@dataclass(frozen=True)
class Finding:
    """What a look at the repository found: the update, if any, and why it is this or none."""

    current: Version | None
    update: Update | None
    reason: Reason


def free_space(path: Path) -> int:
    """Give the bytes that can still be written below ``path``."""
    return shutil.disk_usage(path).free


class Updater:
    """Checks for updates and downloads them. May be used from any thread; holds nothing open between calls.

    One operation at a time works on an installation, whichever process it is in: the others get ``Busy``.

    Args:
        config: what to update and whom to trust.
        reader: the repository, instead of the one that ``config`` names: for tests, and for storages of your own.
        free_space: how many bytes can be written below a folder.

    Raises:
        Misconfigured: there is no installation at ``config.location``, or it is another product's.

    """

    def __init__(
        self, config: Config, *, reader: Reader | None = None, free_space: Callable[[Path], int] = free_space
    ) -> None:
        self._here = open_here(config)
        self._reader = reader
        self._free_space = free_space

    def check(self) -> Update | None:
        """Ask the repository for an update. Costs two small requests when there is none.

        Raises:
            Unavailable: the repository does not answer, or does not know the product.
            Expired: what it serves is too old; ``since`` says since when.
            Untrusted: what it serves is not what the owner signed.
            Busy: another process is at work here.
            InstallFailed: this disk cannot be written.

        """
        return self.look().update

    def look(self) -> Finding:
        """Do as :meth:`check`, and say also why there is nothing. Raises as it does."""
        with self._here.working(), connect(self._here.config, self._reader) as reader:
            session = self._here.session(reader)
            try:
                session.refresh()
                finding = self._find(session)
            except InstarError as error:
                self._here.note_contact(error)
                raise
            self._here.note_contact(None)
            return finding

    def download(
        self,
        update: Update,
        *,
        progress: OnProgress = ignore_progress,
        cancelled: Callable[[], bool] = never_cancelled,
    ) -> Staged:
        """Fetch what is missing and build the new version beside the running one, which is not touched.

        What an earlier attempt fetched is used. Every byte is verified, those that are here already too.

        Args:
            update: what :meth:`check` gave.
            progress: told of downloading and rebuilding, from several threads.
            cancelled: asked often; when it gives true, the work stops and what was fetched is kept.

        Raises:
            Unavailable: the repository does not answer, or lacks what it promised.
            Cancelled: ``cancelled()`` became true.
            Untrusted: what it serves is not what the owner signed.
            InstallFailed: there is no room, or the disk refuses.
            Conflict: the installation changed since the check. Check again.
            Busy: another process is at work here.

        """
        installation = self._here.installation
        with self._here.working(), connect(self._here.config, self._reader) as reader:
            status = installation.status()
            self._expect(update, status)
            if status.staged != update.release:
                session = self._here.session(reader)
                sources = self._sources(session, status)
                downloads = Downloads(installation.downloads)
                plan = plan_route(update.manifest, take_inventory(sources))
                self._require_space(update.manifest, downloads.missing(plan))
                # The long part, without the installer's lock: meanwhile the app may start, confirm, roll back.
                downloads.fetch(plan, reader, progress=progress, cancelled=cancelled)
                with installation.lock():
                    self._expect(update, installation.status())
                    staging = installation.new_staging()
                    make_tree(
                        update.manifest,
                        sources,
                        downloads,
                        staging,
                        reader=reader,
                        progress=progress,
                        cancelled=cancelled,
                    )
                    installation.stage(staging, update.release)
                downloads.clear()
                session.manifests.prune(_trees(installation.status()))
            # The channel is another matter: it is switched when its release is, or a switch that leads down would be
            # forgotten by whoever downloads today and installs tomorrow.
            self._here.save_record(channel=installation.record.channel)
        return Staged(self._here, update)

    def _find(self, session: Session) -> Finding:
        here = self._here
        status = here.installation.status()
        choice = choose(here, session, status)
        if status.staged is not None and not choice.offers(status.staged.version):
            here.installation.discard()  # withdrawn while it waited for the app's next start
            status = here.installation.status()
        current = None if status.current is None else status.current.version
        decision = choice.decision
        if decision.entry is None:
            if here.switches_channel and current is not None and choice.leads_on_from(current):
                here.save_record(channel=here.channel)  # from here on it is followed like any other
            return Finding(current, None, decision.reason)
        update = self._price(session, decision.entry, decision.reason, status)
        if any(failure.tree_digest == update.release.tree_digest for failure in status.failed):
            # The very content that failed here, under another number.
            return Finding(current, None, Reason.FAILED_HERE)
        return Finding(current, update, decision.reason)

    def _price(self, session: Session, entry: Entry, reason: Reason, status: Status) -> Update:
        current = status.current
        manifest = session.manifest(entry.version)
        passed = max(entry.requires, entry.introduces, 0 if current is None else current.checkpoint)
        release = Installed(manifest.version, manifest.tree_digest, passed)
        plan = plan_route(manifest, take_inventory(self._sources(session, status)))
        here_already = status.staged == release
        return Update(
            version=manifest.version,
            current=None if current is None else current.version,
            direction=_direction(current, manifest.version),
            reason=reason,
            notes=manifest.notes,
            meta=manifest.meta,
            checkpoint=entry.introduces,
            download_size=0 if here_already else Downloads(self._here.installation.downloads).missing(plan),
            full_size=plan.full_size,
            installed_size=manifest.size,
            download_by={means.value: size for means, size in plan.download_by_means.items()},
            made_by={means.value: size for means, size in plan.result_by_means.items()},
            requests=0 if here_already else plan.requests,
            release=release,
            base=current,
            manifest=manifest,
        )

    def _sources(self, session: Session, status: Status) -> list[Source]:
        """Find what the running tree is made of. Without a manifest it is of no use, and the download just longer."""
        tree = self._here.installation.current_tree
        if tree is None or status.current is None:
            return []
        manifest = session.manifests.of_tree(status.current.tree_digest)
        if manifest is None:
            try:
                session.ensure()
                manifest = session.manifest(status.current.version)
            except (Untrusted, Unavailable):
                return []
        return [Source(tree, manifest)]

    def _expect(self, update: Update, status: Status) -> None:
        """Refuse an update that was found for another state of things: it may be older than what runs now."""
        if status.current != update.base:
            msg = "The installation was changed since the update was found."
            raise Conflict(msg, hint="Check again.")
        if any(failure.tree_digest == update.release.tree_digest for failure in status.failed):
            msg = f"Version {update.version} failed on this device and is not installed again."
            raise InstallFailed(msg, running=self._here.running)

    def _require_space(self, manifest: Manifest, missing: int) -> None:
        folder = self._here.installation.state_folder
        needed = missing + manifest.size + _PER_FILE * len(manifest.files)
        free = self._free_space(folder)
        if free < needed:
            # An update that was killed may have left half a tree, and nobody else may ever come to remove it.
            self._here.installation.recover()
            free = self._free_space(folder)
        if free < needed:
            msg = f"There is not enough room for version {manifest.version}: it needs {needed / 1e6:,.1f} MB."
            hint = f"Free at least {(needed - free) / 1e6:,.1f} MB more on the disk of {folder}."
            raise InstallFailed(msg, running=self._here.running, hint=hint)


@dataclass(frozen=True)
class Staged:
    """A version that is complete on this disk and waits to be switched to. The app goes on running the old one."""

    _here: Here = field(repr=False)
    update: Update

    def install(self, when: Literal["now", "next-start"] = "now") -> Outcome:
        """Switch to it: at once, or let ``startup`` do it when the app starts next.

        The health command, if there is one, runs first; a version for which it fails is never selected, and is not
        offered on this device again.

        Returns:
            Whether it is selected now, or waits for the app's next start or (in place on Windows) exit.

        Raises:
            InstallFailed: the version failed its health command, or the disk refused; ``running`` says what runs.
            Conflict: something else was staged in the meantime. Check again.
            Busy: another process works on the installation.
            Misconfigured: ``when`` is neither.

        """
        if when not in {"now", "next-start"}:
            msg = f'when is "now" or "next-start", not {when!r}.'
            raise Misconfigured(msg)
        here, installation = self._here, self._here.installation
        with disk_errors(installation.location, running=here.running), installation.lock():
            status = installation.status()
            if status.staged != self.update.release or status.current != self.update.base:
                msg = f"Version {self.update.version} does not wait here any more."
                raise Conflict(msg, hint="Check again.")
            if when == "next-start":
                installation.switch_at_start()
                outcome = Outcome.AT_NEXT_START
            else:
                switched = installation.switch(
                    environment=here.config.environment,
                    restart=relaunch_command(own_command(), installation.location),
                )
                outcome = Outcome.WHEN_APP_EXITS if switched is Switched.WHEN_APP_EXITS else Outcome.SELECTED
            with contextlib.suppress(InstarError):
                # What was asked for is done; the next check finds the release in the channel and writes it down.
                here.save_record(channel=here.channel)
        return outcome


def _direction(current: Installed | None, version: Version) -> Direction:
    if current is None:
        return Direction.FIRST
    return Direction.UP if version > current.version else Direction.DOWN


def _trees(status: Status) -> list[Digest]:
    return [held.tree_digest for held in (status.current, status.previous, status.staged) if held is not None]
