"""What an app does about its own installation while it lives: start, confirm, go back, look."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, NoReturn

from instar.client.choice import choose
from instar.client.config import Config
from instar.client.here import Contact, Here, open_here
from instar.client.relaunch import own_command, relaunch, relaunch_command
from instar.errors import Busy, Expired, InstallFailed, InstarError, Misconfigured, Unavailable
from instar.install import Action, Failure, Installation, Phase, StartReason, Switched
from instar.model.version import Version

__all__ = [
    "Start",
    "Status",
    "confirm",
    "find_installation",
    "forget_failures",
    "restart",
    "rollback",
    "startup",
    "status",
]

# Seconds between two tries to confirm, and altogether: another process holds the installer's lock for moments only,
# save while it builds a new tree; and an app that cannot confirm is rolled back in the end.
_CONFIRM_AGAIN: Final = 0.2
_CONFIRM_PATIENCE: Final = 10.0


@dataclass(frozen=True)
class Start:
    """What ``startup`` found and did.

    ``restart_needed``: another version than the one in this process is selected now; call ``restart``. ``reason`` says
    why, for a log. ``version`` is what is selected, None where nothing is installed (an app run from its sources).
    ``pending``: this version has not confirmed yet that it works. ``problem`` is what went wrong without harm.
    """

    restart_needed: bool
    reason: StartReason
    version: Version | None
    pending: bool
    problem: str | None


@dataclass(frozen=True)
class Status:
    """How an installation stands, by what is known on this machine.

    ``phase`` is ``"empty"``, ``"steady"`` or ``"pending"``: the current version has not confirmed yet, and was started
    ``starts`` of ``max_starts`` times. ``previous`` can be gone back to; ``staged`` waits, ``at_start`` for the app's
    next start. ``failed`` are versions that did not work here. ``known_until``: until when what was last heard from the
    repository may be believed; ``expired_since``: since when not; both None when nothing was heard yet. ``offered`` is
    the version that would be offered by that. ``contact`` is how the last attempt to reach the repository went.
    """

    location: Path
    product: str
    platform: str
    channel: str
    urls: tuple[str, ...]
    layout: str
    device_id: str
    version: Version | None
    phase: Phase
    previous: Version | None
    staged: Version | None
    at_start: bool
    starts: int
    max_starts: int
    unfinished: bool
    failed: tuple[Failure, ...]
    known_until: datetime | None
    expired_since: datetime | None
    offered: Version | None
    contact: Contact | None


def startup(config: Config) -> Start:
    """Begin an app's life; call it once, first thing in ``main``, before anything of the app is loaded.

    Finishes or undoes what was interrupted, selects a version that waited for this start, counts the starts of a new
    version and goes back to the one before when it was started too often without being confirmed.

    It never raises for what is wrong with the installation: the app runs on, and ``problem`` says what it is.
    """
    try:
        installation = open_here(config).installation
        started = installation.started(
            environment=config.environment,
            restart=relaunch_command(own_command(), config.location),
        )
        standing = installation.status()
    except InstarError as error:
        return Start(restart_needed=False, reason=StartReason.NOTHING, version=None, pending=False, problem=str(error))
    return Start(
        restart_needed=started.action is Action.RESTART,
        reason=started.reason,
        version=None if standing.current is None else standing.current.version,
        pending=standing.phase is Phase.PENDING,
        problem=started.problem,
    )


def restart(config: Config, argv: Sequence[str] | None = None) -> NoReturn:
    """Replace this process by the version that is selected now, with the same arguments. Nothing after it runs.

    Args:
        config: the app's.
        argv: the command to start instead of the one that started this process.

    Raises:
        InstallFailed: it could not be started; this process goes on.

    """
    waiting = False
    with contextlib.suppress(InstarError):
        waiting = Installation.open(config.location).status().unfinished
    if sys.platform != "win32" or not waiting:
        relaunch(config.location, argv)
    # Only on Windows: the new process runs beside this one, or a helper waits for this one's end to start it.
    os._exit(0)


def confirm(config: Config) -> None:
    """Declare that the running version works. Call it when the app has come up; more than once does no harm.

    Raises:
        Misconfigured: there is no installation.
        Busy: another process has been working on it for ten seconds. Call again later.
        InstallFailed: the disk refused; call again at the next start.

    """
    installation = open_here(config).installation
    clock = config.clock
    give_up = clock.monotonic() + _CONFIRM_PATIENCE
    while installation.status().phase is Phase.PENDING:
        try:
            installation.confirm()
        except Busy:
            if clock.monotonic() >= give_up:
                raise
            clock.sleep(_CONFIRM_AGAIN)


def forget_failures(config: Config) -> tuple[Version, ...]:
    """Let versions that failed on this device be offered to it again: say, when it was the disk that was full.

    Returns:
        The versions.

    Raises:
        Misconfigured: there is no installation.
        Busy: another process works on it.
        InstallFailed: the disk refused.

    """
    installation = open_here(config).installation
    failed = tuple(failure.version for failure in installation.status().failed)
    installation.forget_failures()
    return failed


def rollback(config: Config, reason: str = "rolled back by hand") -> Version:
    """Go back to the version before, and do not take the current one again on this device.

    Returns:
        The version that is selected now; in place on Windows, as soon as the app exits.

    Raises:
        Misconfigured: there is nothing to go back to.
        InstallFailed: the disk refused; what ran before runs on.
        Busy: another process works on the installation.

    """
    here = open_here(config)
    previous = here.installation.status().previous
    switched = here.installation.rollback(reason, restart=relaunch_command(own_command(), config.location))
    if switched is Switched.DONE:
        previous = here.installation.status().current
    if previous is None:
        msg = "There is no version to go back to."
        raise Misconfigured(msg)
    return previous.version


def status(config: Config) -> Status:
    """Say how an installation stands. Asks nobody, changes nothing that is installed.

    Raises:
        Misconfigured: there is no installation.

    """
    here = open_here(config)
    record, standing = here.installation.record, here.installation.status()
    known_until, expired_since, offered = _known(here)
    return Status(
        location=config.location,
        product=record.product,
        platform=record.platform,
        channel=record.channel,
        urls=record.urls,
        layout=record.layout.value,
        device_id=record.device_id,
        version=None if standing.current is None else standing.current.version,
        phase=standing.phase,
        previous=None if standing.previous is None else standing.previous.version,
        staged=None if standing.staged is None else standing.staged.version,
        at_start=standing.at_start,
        starts=standing.starts,
        max_starts=record.max_starts,
        unfinished=standing.unfinished,
        failed=standing.failed,
        known_until=known_until,
        expired_since=expired_since,
        offered=offered,
        contact=here.contact(),
    )


def _known(here: Here) -> tuple[datetime | None, datetime | None, Version | None]:
    # Imported here for the same reason as the session: most of an app's life needs none of it.
    from instar.storage import MemoryStorage  # noqa: PLC0415

    try:
        with contextlib.ExitStack() as stack:
            # On a read-only disk there is nobody else at work who had to be kept away.
            with contextlib.suppress(InstallFailed):
                stack.enter_context(here.working())
            # An empty storage: whatever is not in the cache is not known.
            session = here.session(MemoryStorage())
            session.load()
            try:
                entry = choose(here, session, here.installation.status()).decision.entry
            except Unavailable:
                entry = None
            return session.expires, None, None if entry is None else entry.version
    except Expired as error:
        return None, error.since, None
    except InstarError:
        return None, None, None


def find_installation(program: Path | None = None) -> Path:
    """Find the installation that a program belongs to.

    Args:
        program: any path inside it; the program that runs in this process unless given.

    Returns:
        The folder of the innermost installation around it. Where there is none, the program's own folder: what
        ``adopt`` could take over.

    """
    if program is None:
        frozen = getattr(sys, "frozen", False)
        program = Path(sys.executable if frozen else sys.argv[0] or sys.executable)
    path = program.resolve()
    for folder in path.parents[:-1]:  # a disk's root is no place for an app
        # One that may not be looked into is not the one that this program belongs to.
        with contextlib.suppress(Misconfigured, InstallFailed):
            return Installation.open(folder).location
    return path.parent
