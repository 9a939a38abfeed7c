"""One installation on this machine: the thin worker that asks ``lifecycle`` what follows and does it on the disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from instar.errors import Busy, InstallFailed, Misconfigured
from instar.install import lifecycle
from instar.install.appdir.native import native_platform
from instar.install.appdir.port import Platform
from instar.install.arrangement import folder_inode, make_arrangement
from instar.install.books import Entry
from instar.install.health import find_illness
from instar.install.journal import Step
from instar.install.outcomes import Action, Started, StartReason, Status, Switched
from instar.install.record import Confirmation, Layout, Record
from instar.install.removal import remove_installation
from instar.install.repair import make_tree_folder, put_file, put_link, remove_entry
from instar.install.state import Installed, Phase, State, Tree
from instar.install.worker import Worker, children
from instar.model.names import TreePath
from instar.system import files
from instar.system.clock import Clock, SystemClock

__all__ = ["Installation"]


class Installation:
    """An installation, opened on its folder. Both layouts behave alike.

    Every method that changes something takes the installation's lock for its own length, and first finishes or undoes
    what an interrupted one left. ``lock`` holds it for longer.

    Methods raise ``Busy`` when another process (or thread) holds the lock, ``InstallFailed`` (with ``running``, the
    version that runs now) when the machine refuses (disk full, read only, files in use), and ``Misconfigured`` when a
    person must change something.

    Made by ``create``, ``adopt`` or ``open``.
    """

    def __init__(self, worker: Worker, record: Record, clock: Clock) -> None:
        self._worker = worker
        self._record = record
        self._clock = clock

    @classmethod
    def create(
        cls, location: Path, *, record: Record, platform: Platform | None = None, clock: Clock | None = None
    ) -> Installation:
        """Begin an installation in ``location``, which is empty or does not exist. Nothing is installed yet.

        One that was begun and never got its first release is begun anew.

        Raises:
            Misconfigured: there is something else already.
            Busy: another process begins it just now.
            InstallFailed: the disk refuses.

        """
        worker = _make_worker(location, platform, clock, layout=record.layout)
        installation = cls(worker, record, clock or SystemClock())
        with worker.door("The installation could not be begun"):
            if record.layout is Layout.VERSIONED:
                worker.location.mkdir(parents=True, exist_ok=True)
            else:
                worker.location.parent.mkdir(parents=True, exist_ok=True)
            foreign = [path.name for path in children(worker.location) if not _begun(worker, path)]
            if foreign and not worker.books.has_record():
                msg = f"{worker.location} is not empty (it holds {foreign[0]!r})."
                raise Misconfigured(msg, hint="Choose an empty folder, or adopt the app that is there.")
            worker.books.make_folders()
            with worker.locked():
                journal = worker.books.read_journal()
                if journal is not None and journal.step is Step.UNINSTALL:
                    remove_installation(worker, record.kept, keep_user_files=journal.keep_user_files)
                elif worker.books.has_record():
                    worker.recover()
                    if worker.state.phase is not Phase.EMPTY:
                        msg = f"{worker.location} is an installation already."
                        raise Misconfigured(msg, hint="Update it, or remove it first.")
                worker.location.mkdir(exist_ok=True)
                worker.books.make_folders()
                worker.make_folders()
                if record.layout is Layout.IN_PLACE and worker.location.is_dir():
                    worker.location.rmdir()
                worker.set_state(State())
                # Last: this file is what makes the folder an installation.
                worker.books.write_record(record)
        return installation

    @classmethod
    def adopt(
        cls,
        location: Path,
        *,
        record: Record,
        release: Installed,
        platform: Platform | None = None,
        clock: Clock | None = None,
    ) -> Installation:
        """Take over the app that stands in ``location`` as ``release``. Layout ``IN_PLACE``; the app is not touched.

        Raises:
            Misconfigured: there is no app folder, or it is an installation already.
            Busy: another process does it just now.
            InstallFailed: the disk refuses.

        """
        if record.layout is not Layout.IN_PLACE:
            msg = "Only the in-place layout can take over an app that is there already."
            raise Misconfigured(msg)
        worker = _make_worker(location, platform, clock, layout=record.layout)
        installation = cls(worker, record, clock or SystemClock())
        with worker.door("The app could not be taken over"):
            inode = folder_inode(worker.location)
            if inode is None or not children(worker.location):
                msg = f"There is no app in {worker.location}."
                raise Misconfigured(msg, hint="Name the folder that the app is in.")
            if os.path.ismount(worker.location):
                msg = f"{worker.location} is a disk of its own, so that nothing can be built beside it."
                raise Misconfigured(msg, hint="Put the app into a folder on that disk.")
            if _find_layout(worker.location):
                msg = f"{worker.location} is an installation already."
                raise Misconfigured(msg, hint="Update it, or remove it first.")
            worker.books.make_folders()
            with worker.locked():
                if worker.books.has_record():
                    msg = f"{worker.location} is an installation already."
                    raise Misconfigured(msg)
                worker.make_folders()
                tree = Tree(worker.free_name(release), release)
                worker.books.write_entry(Entry(tree, inode, confirmed=True))
                worker.set_state(lifecycle.follow(State(), lifecycle.Adopted(tree)).state)
                worker.books.write_record(record)
        return installation

    @classmethod
    def open(cls, location: Path, *, platform: Platform | None = None, clock: Clock | None = None) -> Installation:
        """Open the installation in ``location``. Reads only; works on a read-only disk.

        Raises:
            Misconfigured: there is none, or a newer instar made it.
            InstallFailed: it cannot be read.

        """
        real = _real(location)
        with _make_worker(real, platform, clock, layout=Layout.VERSIONED).door("The installation cannot be read"):
            layout = _find_layout(real)
        if layout is None:
            msg = f"There is no installation in {location}."
            raise Misconfigured(msg, hint="Install or adopt an app there first.")
        worker = _make_worker(real, platform, clock, layout=layout)
        with worker.door("The installation cannot be read"):
            record = worker.books.read_record()
        if record is None:  # removed this moment
            msg = f"There is no installation in {location}."
            raise Misconfigured(msg)
        return cls(worker, record, clock or SystemClock())

    @property
    def location(self) -> Path:
        """The folder that the user knows, without links."""
        return self._worker.location

    @property
    def state_folder(self) -> Path:
        """``DIR/.instar`` or ``<parent>/.<name>.instar``. Other floors may keep sub-folders of their own in it."""
        return self._worker.state_folder

    @property
    def record(self) -> Record:
        """What the installation is, as read last."""
        return self._record

    @property
    def current_tree(self) -> Path | None:
        """The real folder of the tree that runs, None before the first release."""
        state = self._view()
        return None if state.current is None else self._worker.place(state.current, state)

    @property
    def entry(self) -> Path:
        """Where the running tree is always reached: ``DIR/current``, or ``DIR`` in place."""
        return self._worker.arrangement.entry

    @property
    def downloads(self) -> Path:
        """The folder for partial downloads. Kept from run to run; may not exist yet."""
        return self.state_folder / "downloads"

    def lock(self) -> AbstractContextManager[None]:
        """Hold the lock; on entry, finish or undo what was interrupted and remove what was left over.

        The same thread may enter it again. Hold it over ``new_staging`` … ``stage``.
        """
        return self._entered("The installation could not be put in order")

    def status(self) -> Status:
        """Say how things stand. Takes no lock and writes nothing."""
        with self._worker.door("The installation cannot be read"):
            state, unfinished = self._worker.look()
        return Status(
            phase=state.phase,
            current=_release(state.current),
            previous=_release(state.previous),
            staged=_release(state.staged),
            at_start=state.at_start,
            starts=state.starts,
            failed=state.failed,
            unfinished=unfinished,
        )

    def reread(self) -> None:
        """Read the record anew: another process may have replaced it since.

        Raises:
            Misconfigured: it is damaged, or the installation was removed.
            InstallFailed: it cannot be read.

        """
        self._record = Installation.open(self.location, platform=self._worker.arrangement.platform).record

    def update_record(self, record: Record) -> None:
        """Replace the record (another channel, other URLs). Product and layout stay.

        Raises:
            Misconfigured: they do not.

        """
        if (record.product, record.layout) != (self._record.product, self._record.layout):
            msg = f"An installation of {self._record.product!s} cannot become another product's or change its layout."
            raise Misconfigured(msg, hint="Remove it and install anew.")
        with self._operation("The record could not be written"):
            self._worker.books.write_record(record)
            self._record = record

    def new_staging(self) -> Path:
        """Make an empty folder on the trees' file system to build a tree in. Only while ``lock`` is held.

        It is removed by the next operation unless it was handed to ``stage``.
        """
        if not self._worker.is_held:
            msg = "new_staging needs the installation's lock to be held until the tree is staged"
            raise RuntimeError(msg)
        with self._worker.door("No tree can be built"):
            return self._worker.make_scratch("tree")

    def stage(self, staging: Path, release: Installed) -> None:
        """Take the complete tree in ``staging`` as ``release``: durable, not selected yet. Replaces one staged before.

        Raises:
            Misconfigured: it is the release that runs.
            InstallFailed: it failed here before, or the disk refuses.

        """
        with self._operation(f"Release {release.version} could not be staged"):
            state = self._worker.state
            if state.current is not None and state.current.release == release:
                msg = f"Release {release.version} runs already."
                raise Misconfigured(msg)
            if state.has_failed(release):
                msg = f"Release {release.version} failed on this machine and is not tried again."
                raise InstallFailed(msg, running=_version(state), hint="Wait for a newer one, or see `instar retry`.")
            tree = Tree(self._worker.free_name(release), release)
            place = self._worker.arrangement.trees / tree.name
            files.sync_tree(staging)
            self._worker.books.write_entry(Entry(tree, staging.stat().st_ino, confirmed=False))
            self._worker.arrangement.platform.move(staging, place)
            self._worker.set_state(lifecycle.follow(state, lifecycle.Staged(tree)).state)
            self._worker.prune()

    def discard(self) -> None:
        """Drop the staged release, if any."""
        with self._operation("The staged release could not be dropped"):
            self._worker.set_state(lifecycle.follow(self._worker.state, lifecycle.Discarded()).state)
            self._worker.prune()

    def forget_failures(self) -> None:
        """Let releases that failed here be tried again."""
        with self._operation("The failures could not be forgotten"):
            self._worker.set_state(replace(self._worker.state, failed=()))

    def switch(self, *, environment: Mapping[str, str], restart: Sequence[str] = ()) -> Switched:
        """Select the staged release now, if its health command succeeds.

        Args:
            environment: what the health command gets to see.
            restart: the command that starts the app again, for the helper that Windows needs in place.

        Raises:
            InstallFailed: the health command failed (the release is remembered as failed), or the disk refused.
                What ran before runs on.
            Misconfigured: nothing is staged.

        """
        with self._operation("The new release could not be selected"):
            state = self._worker.state
            if state.staged is None:
                msg = "No release is staged."
                raise Misconfigured(msg, hint="Download an update first.")
            self._check_health(state.staged, environment)
            proven = self._record.confirmation is Confirmation.BY_HEALTH
            event = lifecycle.Switched(state.staged.name, proven=proven)
            following = lifecycle.follow(state, event).state
            switched = self._worker.select(following, self._record.kept, restart)
            # Not where the app in this process may be running from a tree that is not kept.
            if switched is Switched.DONE and following.previous == state.current:
                with contextlib.suppress(OSError):
                    self._worker.prune()
            return switched

    def _check_health(self, tree: Tree, environment: Mapping[str, str]) -> None:
        worker = self._worker
        place = worker.place(tree, worker.state)
        illness = find_illness(self._record, place, worker.arrangement.platform, environment)
        if illness is None:
            return
        state = worker.state
        worker.set_state(lifecycle.follow(state, lifecycle.Failed(tree.name, illness, self._clock.now())).state)
        worker.prune()
        msg = f"Release {tree.release.version} was not selected: {illness}."
        raise InstallFailed(msg, running=_version(state), hint="The release before it runs on.")

    def switch_at_start(self) -> None:
        """Let ``started`` select the staged release. Raises ``Misconfigured`` when nothing is staged."""
        with self._operation("The switch could not be put off to the next start"):
            self._worker.set_state(lifecycle.follow(self._worker.state, lifecycle.Scheduled()).state)

    def started(self, *, environment: Mapping[str, str], restart: Sequence[str] = ()) -> Started:
        """Record that the app starts; call it first in the app's ``main``, once per start.

        Finishes or undoes what was interrupted, rolls back a pending release that was started too often without being
        confirmed, selects a release that waited for this start. Never raises for what it cannot do on this machine
        (locked, read only, disk full): the app runs on and ``problem`` says why.

        Raises:
            Misconfigured: the installation was made by a newer instar, or is being removed.

        """
        worker = self._worker
        try:
            with worker.door("This start could not be recorded"), worker.locked():
                moved = worker.recover()
                self._record = worker.books.read_record() or self._record
                worker.tidy()
                worker.prune()
                state = worker.state
                if state.phase is Phase.EMPTY:
                    return Started(Action.RUN, StartReason.NOTHING, "No release is installed here yet.")
                event = lifecycle.Started(self._clock.now(), self._record.max_starts, self._record.deadline)
                following = lifecycle.follow(state, event)
                if following.roll_back is not None:
                    return self._roll_back_at_start(following.roll_back, restart)
                if moved:
                    return Started(Action.RESTART, StartReason.FINISHED)
                # Counted before anything else is tried: whatever happens to this process next, it was a start.
                if following.state != state:
                    worker.set_state(following.state)
                if state.at_start:
                    return self._switch_at_this_start(environment, restart)
                return Started(Action.RUN, StartReason.NOTHING)
        except (Busy, InstallFailed) as error:
            return Started(Action.RUN, StartReason.POSTPONED, str(error))

    def _roll_back_at_start(self, reason: str, restart: Sequence[str]) -> Started:
        switched = self._roll_back(reason, restart)
        return Started(Action.RESTART, StartReason.ROLLED_BACK, reason, by_helper=switched is Switched.WHEN_APP_EXITS)

    def _switch_at_this_start(self, environment: Mapping[str, str], restart: Sequence[str]) -> Started:
        failures = len(self._worker.state.failed)
        try:
            switched = self.switch(environment=environment, restart=restart)
        except InstallFailed as error:
            ill = len(self._worker.state.failed) > failures
            return Started(Action.RUN, StartReason.UNHEALTHY if ill else StartReason.POSTPONED, str(error))
        return Started(Action.RESTART, StartReason.SWITCHED, by_helper=switched is Switched.WHEN_APP_EXITS)

    def confirm(self) -> None:
        """Declare that the running release works. Older trees but one are removed. Confirming twice is no error."""
        with self._operation("The release could not be confirmed"):
            state = self._worker.state
            following = lifecycle.follow(state, lifecycle.Confirmed()).state
            if following != state:
                self._worker.mark_confirmed(following)
                self._worker.set_state(following)
            self._worker.prune()

    def rollback(self, reason: str = "rolled back by hand", *, restart: Sequence[str] = ()) -> Switched:
        """Go back to the previous release and remember the current one as failed.

        Raises:
            Misconfigured: there is no previous release.
            InstallFailed: the disk refused; what ran before runs on.

        """
        with self._operation("The previous release could not be selected"):
            return self._roll_back(reason, restart)

    def _roll_back(self, reason: str, restart: Sequence[str]) -> Switched:
        state = self._worker.state
        name = state.current.name if state.current else ""
        event = lifecycle.RolledBack(name, reason, self._clock.now())
        return self._worker.select(lifecycle.follow(state, event).state, self._record.kept, restart)

    def recover(self) -> None:
        """Finish or undo what an interrupted operation left. Every other operation does so first by itself."""
        with self._operation("The interrupted step could not be finished"):
            pass

    def replace_file(self, path: str, source: Path, *, executable: bool) -> None:
        """Put the file ``source`` (on the trees' file system, as in ``new_staging``) at ``path`` of the running tree.

        One step: a reader sees the old content or all of the new. Whatever else stands at ``path`` gives way; folders
        above it are made. Never follows a link out of the tree.

        Raises:
            Misconfigured: ``path`` is no path inside a tree, or no release is installed.
            InstallFailed: the disk refuses, or (Windows) the file is in use.

        """
        with self._repair() as tree:
            put_file(tree, TreePath(path), source, executable=executable, platform=self._worker.arrangement.platform)

    def replace_link(self, path: str, target: str) -> None:
        """Put a link to ``target`` at ``path`` of the running tree, in one step. Raises as ``replace_file``."""
        with self._repair() as tree:
            platform = self._worker.arrangement.platform
            put_link(tree, TreePath(path), target, scratch=self._worker.make_scratch("link"), platform=platform)

    def make_folder(self, path: str) -> None:
        """Make the folder ``path`` in the running tree; a file or link there gives way. Raises as ``replace_file``."""
        with self._repair() as tree:
            make_tree_folder(tree, TreePath(path), platform=self._worker.arrangement.platform)

    def remove(self, path: str) -> bool:
        """Remove the file, link or folder ``path`` of the running tree, but nothing that a pattern of ``keep`` names.

        Says whether it was removed. Raises as ``replace_file``.
        """
        with self._repair() as tree:
            return remove_entry(tree, path, keep=self._record.kept, platform=self._worker.arrangement.platform)

    @contextlib.contextmanager
    def _repair(self) -> Iterator[Path]:
        with self._operation("The app's file could not be repaired"):
            tree = self.current_tree
            if tree is None:
                msg = "No release is installed here yet."
                raise Misconfigured(msg)
            try:
                yield tree
            except ValueError as error:
                raise Misconfigured(f"{error}.") from error

    def uninstall(self, *, keep_user_files: bool = False) -> tuple[Path, ...]:
        """Remove the app and everything of ours.

        Args:
            keep_user_files: leave the files that ``keep`` names, at their paths below ``location``.

        Returns:
            The files that were left.

        """
        with self._worker.door("The app could not be removed"), self._worker.locked():
            return remove_installation(self._worker, self._record.kept, keep_user_files=keep_user_files)

    @contextlib.contextmanager
    def _operation(self, failure: str) -> Iterator[None]:
        with self._worker.door(failure), self._entered(failure):
            yield

    @contextlib.contextmanager
    def _entered(self, failure: str) -> Iterator[None]:
        """Hold the lock over what the caller does, with everything in order. Only our own errors are translated."""
        worker = self._worker
        outermost = not worker.is_held
        with contextlib.ExitStack() as stack:
            with worker.door(failure):
                stack.enter_context(worker.locked())
                worker.recover()
                if outermost:
                    worker.tidy()
                    self._record = worker.books.read_record() or self._record
            yield

    def _view(self) -> State:
        with self._worker.door("The installation cannot be read"):
            return self._worker.look()[0]


def _real(location: Path) -> Path:
    """Give the folder itself: what is exchanged or linked must not be a link that somebody else made to it."""
    return Path(os.path.realpath(location))


def _make_worker(location: Path, platform: Platform | None, clock: Clock | None, *, layout: Layout) -> Worker:
    real = _real(location)
    arrangement = make_arrangement(real, platform or native_platform(), in_place=layout is Layout.IN_PLACE)
    return Worker(arrangement, clock or SystemClock())


def _find_layout(location: Path) -> Layout | None:
    """Look which of the two state folders there is."""
    for layout in Layout:
        worker = _make_worker(location, None, None, layout=layout)
        if worker.books.has_record():
            return layout
    return None


def _begun(worker: Worker, path: Path) -> bool:
    """Say whether ``path`` is what a creation that was interrupted before its last step leaves in the folder."""
    if path == worker.state_folder:
        return True
    return path == worker.arrangement.trees and worker.state_folder.is_dir() and not children(path)


def _release(tree: Tree | None) -> Installed | None:
    return tree.release if tree else None


def _version(state: State) -> str | None:
    return str(state.current.release.version) if state.current else None
