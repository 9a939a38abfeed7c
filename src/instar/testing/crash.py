"""Interrupting a function at its n-th change of the file system: killed, or refused by the disk.

The function runs in a child process. An audit hook there counts everything that changes names or opens a file for
writing below a folder, and at the chosen step kills the process (as a power cut would) or raises the ``OSError`` that
the system would raise. The code under test knows nothing of it; what it does without Python's knowledge (a system call
through ``ctypes``) it announces with ``sys.audit("instar.…", path, …)``.

Needs ``os.fork``: POSIX only.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

__all__ = ["DISK_FULL", "KILL", "READ_ONLY", "Ended", "Fail", "Fault", "Kill", "every_step", "run", "steps_of"]


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL: nothing is cleaned up, no ``finally`` runs."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The system refuses with this error number; ``lasting``: every later change too."""

    number: int
    lasting: bool = True


Fault = Kill | Fail

KILL: Final = Kill()
DISK_FULL: Final = Fail(errno.ENOSPC)
READ_ONLY: Final = Fail(errno.EROFS)

# Every event whose first arguments are paths that it changes, and how many of them; more in the audit events table.
_CHANGES: Final = {
    "os.rename": 2,
    "os.remove": 1,
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.symlink": 2,
    "os.link": 2,
    "os.truncate": 1,
    "os.chmod": 1,
    "os.utime": 1,
}
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# A step that frees space or undoes goes through on a full disk.
_FREEING: Final = frozenset({"os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.utime"})
# Far above what any operation under test does; a runaway loop in a test ends here.
_MAX_STEPS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Ended:
    """How the child ended: ``killed``, or ``error`` (the exception's type, bases and text), or it finished.

    ``steps`` names every change up to the end. ``reached`` says whether the fault happened at all.
    """

    reached: bool
    killed: bool
    error: str | None = None
    families: tuple[str, ...] = ()
    trace: str = ""
    steps: tuple[str, ...] = field(default=(), repr=False)

    @property
    def finished(self) -> bool:
        """Whether the function returned."""
        return not self.killed and self.error is None


def run(function: Callable[[], object], *, below: Path, fault: Fault = KILL, at: int = 0) -> Ended:
    """Run ``function`` in a child process and let ``fault`` happen instead of change number ``at`` (from 1; 0: never).

    Only changes of paths below the folder ``below`` count.

    Raises:
        RuntimeError: the child died of something else.

    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of forking while threads run; the child only ever uses its own.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(reader)
        _be_child(function, _Interrupter(below, fault, at, os.fdopen(writer, "w", encoding="utf-8")))
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8", errors="replace") as pipe:
        lines = pipe.read().splitlines()
    _, status = os.waitpid(child, 0)
    steps = tuple(json.loads(line[1:]) for line in lines if line.startswith("+"))
    reached = "!" in lines
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and reached:
        return Ended(reached=True, killed=True, steps=steps)
    ends = [json.loads(line[1:]) for line in lines if line.startswith("=")]
    if not ends or status:
        msg = f"the child process died of something else (status {status})"
        raise RuntimeError(msg)
    error, families, trace = ends[0]
    return Ended(reached=reached, killed=False, error=error, families=tuple(families), trace=trace, steps=steps)


def steps_of(function: Callable[[], object], *, below: Path) -> tuple[str, ...]:
    """Run ``function`` undisturbed in a child process and name every change it makes below the folder.

    Raises:
        RuntimeError: it raised.

    """
    ended = run(function, below=below)
    if not ended.finished:
        msg = f"the function failed without any fault: {ended.error}\n{ended.trace}"
        raise RuntimeError(msg)
    return ended.steps


def every_step(
    prepare: Callable[[int], tuple[Path, Callable[[], object]]], *, fault: Fault = KILL, stride: int = 1
) -> Iterator[tuple[int, Path, Ended]]:
    """Interrupt at the first, the second … change, until the function gets through undisturbed.

    Args:
        prepare: makes a fresh folder for attempt number n and gives it with the function to interrupt.
        fault: what happens.
        stride: take only every n-th step, for long operations.

    Yields:
        The step, the folder and how the child ended; judge there what is left.

    """
    for at in range(1, _MAX_STEPS, stride):
        folder, function = prepare(at)
        ended = run(function, below=folder, fault=fault, at=at)
        if not ended.reached:
            if not ended.finished:
                msg = f"the function failed without any fault: {ended.error}\n{ended.trace}"
                raise RuntimeError(msg)
            return
        yield at, folder, ended


class _Interrupter:
    """The audit hook of one child."""

    def __init__(self, below: Path, fault: Fault, at: int, report: IO[str]) -> None:
        self._below = os.path.realpath(below)
        self._fault = fault
        self._at = at
        self.report = report
        self._count = 0
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._inside = False
        self.active = True

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.active or (event != "open" and event not in _CHANGES and not event.startswith("instar.")):
            return
        with self._lock:
            if self._inside or os.getpid() != self._owner:
                return
            self._inside = True
            try:
                paths = [path for path in self._changed(event, args) if self._counts(path)]
                if paths:
                    self._step(event, paths)
            finally:
                self._inside = False

    def _changed(self, event: str, args: tuple[Any, ...]) -> list[str]:
        if event == "open":
            path, _, flags = args
            writes = isinstance(flags, int) and flags & _WRITING
            return [os.fsdecode(path)] if writes and isinstance(path, str | bytes | os.PathLike) else []
        count = _CHANGES.get(event, len(args))
        paths = [arg for arg in args[:count] if isinstance(arg, str | bytes | os.PathLike)]
        if event == "os.symlink":
            paths = paths[1:]  # the first is only what the link says
        # Functions that walk a tree name what they change relative to an open folder, which is the last argument.
        base = _folder_of(args[-1]) if event in _RELATIVE else ""
        return [os.path.join(base, os.fsdecode(path)) for path in paths]

    def _counts(self, path: str) -> bool:
        parent, name = os.path.split(os.path.abspath(path))
        real = os.path.join(os.path.realpath(parent), name)
        return real == self._below or real.startswith(self._below + os.sep)

    def _step(self, event: str, paths: list[str]) -> None:
        self._count += 1
        names = " ".join(os.path.relpath(path, self._below) for path in paths)
        self.report.write(f"+{json.dumps(f'{event} {names}')}\n")
        lasting = isinstance(self._fault, Fail) and self._fault.lasting
        if not self._at or self._count < self._at or (self._count > self._at and not lasting):
            return
        if isinstance(self._fault, Kill):
            self.report.write("!\n")
            self.report.flush()
            os.kill(os.getpid(), signal.SIGKILL)
            return
        self.report.write("!\n")
        if self._fault.number == errno.ENOSPC and event in _FREEING:
            return
        raise OSError(self._fault.number, os.strerror(self._fault.number), paths[0])


_RELATIVE: Final = frozenset({"os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.utime", "os.rename", "os.symlink"})


def _folder_of(descriptor: object) -> str:
    """Give the folder that a descriptor stands for; empty (the working folder) for none."""
    if not isinstance(descriptor, int) or descriptor < 0:
        return ""
    if sys.platform == "darwin":
        import fcntl  # noqa: PLC0415  # POSIX only

        return fcntl.fcntl(descriptor, fcntl.F_GETPATH, b"\0" * 1024).rstrip(b"\0").decode()
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def _be_child(function: Callable[[], object], interrupter: _Interrupter) -> None:
    status = 1
    try:
        sys.addaudithook(interrupter)
        end: tuple[str | None, list[str], str] = (None, [], "")
        try:
            function()
        except BaseException as error:  # noqa: BLE001  # whatever it is, the parent is told
            families = [kind.__name__ for kind in type(error).__mro__]
            end = (f"{type(error).__name__}: {error}", families, traceback.format_exc())
        interrupter.active = False
        interrupter.report.write(f"={json.dumps(end)}\n")
        interrupter.report.flush()
        status = 0
    finally:
        # Nothing of the parent's (its test runner, its buffers) may run in the child.
        os._exit(status)
