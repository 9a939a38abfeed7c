"""One installation on this machine: the thin worker that asks ``lifecycle`` what follows and does it on the disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from instar.install.outcomes import Started, Status, Switched
from instar.install.record import Record
from instar.install.state import Installed

if TYPE_CHECKING:
    from instar.install.appdir.port import Platform
    from instar.system.clock import Clock

__all__ = ["Installation"]


class Installation:
    """An installation, opened on its folder. Both layouts behave alike.

    Every method that changes something takes the installation's lock for its own length, and first finishes or undoes
    what an interrupted one left. ``lock`` holds it for longer.

    Methods raise ``Busy`` when another process (or thread) holds the lock, ``InstallFailed`` (with ``running``, the
    version that runs now) when the machine refuses (disk full, read only, files in use), and ``Misconfigured`` when a
    person must change something.
    """

    location: Path
    """The folder that the user knows."""
    state_folder: Path
    """``DIR/.instar`` or ``<parent>/.<name>.instar``. Files of other floors may live in sub-folders of their own."""

    @classmethod
    def create(
        cls, location: Path, *, record: Record, platform: Platform | None = None, clock: Clock | None = None
    ) -> Installation:
        """Begin an installation in ``location``, which is empty or does not exist. Nothing is installed yet.

        One that was begun and never got its first release is begun anew.

        Raises:
            Misconfigured: there is something else already.
            InstallFailed: the disk refuses.

        """
        raise NotImplementedError

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
            InstallFailed: the disk refuses.

        """
        raise NotImplementedError

    @classmethod
    def open(cls, location: Path, *, platform: Platform | None = None, clock: Clock | None = None) -> Installation:
        """Open the installation in ``location``. Reads only; works on a read-only disk.

        Raises:
            Misconfigured: there is none, or a newer instar made it.

        """
        raise NotImplementedError

    @property
    def record(self) -> Record:
        """What the installation is, as read last."""
        raise NotImplementedError

    @property
    def current_tree(self) -> Path | None:
        """The real folder of the tree that runs, None before the first release."""
        raise NotImplementedError

    @property
    def entry(self) -> Path:
        """Where the running tree is always reached: ``DIR/current``, or ``DIR`` in place."""
        raise NotImplementedError

    @property
    def downloads(self) -> Path:
        """The folder for partial downloads. Kept from run to run; may not exist yet."""
        raise NotImplementedError

    def lock(self) -> AbstractContextManager[None]:
        """Hold the lock; on entry, finish or undo what was interrupted and remove what was left over.

        The same thread may enter it again. Hold it over ``new_staging`` … ``stage``.
        """
        raise NotImplementedError

    def status(self) -> Status:
        """Say how things stand. Takes no lock and writes nothing."""
        raise NotImplementedError

    def update_record(self, record: Record) -> None:
        """Replace the record (another channel, other URLs). Product and layout stay.

        Raises:
            Misconfigured: they do not.

        """
        raise NotImplementedError

    def new_staging(self) -> Path:
        """Make an empty folder on the trees' file system to build a tree in. Only while ``lock`` is held.

        It is removed by the next operation unless it was handed to ``stage``.
        """
        raise NotImplementedError

    def stage(self, staging: Path, release: Installed) -> None:
        """Take the complete tree in ``staging`` as ``release``: durable, not selected yet. Replaces one staged before.

        Raises:
            Misconfigured: it is the release that runs.
            InstallFailed: it failed here before, or the disk refuses.

        """
        raise NotImplementedError

    def discard(self) -> None:
        """Drop the staged release, if any."""
        raise NotImplementedError

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
        raise NotImplementedError

    def switch_at_start(self) -> None:
        """Let ``started`` select the staged release. Raises ``Misconfigured`` when nothing is staged."""
        raise NotImplementedError

    def started(self, *, environment: Mapping[str, str], restart: Sequence[str] = ()) -> Started:
        """Record that the app starts; call it first in the app's ``main``, once per start.

        Finishes or undoes what was interrupted, rolls back a pending release that was started too often without being
        confirmed, selects a release that waited for this start. Never raises for what it cannot do on this machine
        (locked, read only, disk full): the app runs on and ``problem`` says why.

        Raises:
            Misconfigured: the installation was made by a newer instar.

        """
        raise NotImplementedError

    def confirm(self) -> None:
        """Declare that the running release works. Older trees but one are removed. Confirming twice is no error."""
        raise NotImplementedError

    def rollback(self, reason: str = "rolled back by hand", *, restart: Sequence[str] = ()) -> Switched:
        """Go back to the previous release and remember the current one as failed.

        Raises:
            Misconfigured: there is no previous release.
            InstallFailed: the disk refused; what ran before runs on.

        """
        raise NotImplementedError

    def recover(self) -> None:
        """Finish or undo what an interrupted operation left. Every other operation does so first by itself."""
        raise NotImplementedError

    def replace_file(self, path: str, source: Path, *, executable: bool) -> None:
        """Put the file ``source`` (on the same file system, as in ``new_staging``) at ``path`` of the running tree.

        One step: a reader sees the old content or all of the new. Whatever else stands at ``path`` gives way; folders
        above it are made. Never follows a link out of the tree.
        """
        raise NotImplementedError

    def replace_link(self, path: str, target: str) -> None:
        """Put a symbolic link to ``target`` at ``path`` of the running tree, in one step."""
        raise NotImplementedError

    def make_folder(self, path: str) -> None:
        """Make the folder ``path`` in the running tree; a file or link there gives way."""
        raise NotImplementedError

    def remove(self, path: str) -> None:
        """Remove the file, link or folder ``path`` of the running tree, unless a pattern of ``keep`` names it."""
        raise NotImplementedError

    def uninstall(self, *, keep_user_files: bool = False) -> tuple[Path, ...]:
        """Remove the app and everything of ours.

        Args:
            keep_user_files: leave the files that ``keep`` names, at their paths below ``location``.

        Returns:
            The files that were left.

        """
        raise NotImplementedError
