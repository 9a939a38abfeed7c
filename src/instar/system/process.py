"""Running a program with a bound on its time and its output, and leaving none of its children behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

__all__ = ["Completed", "run_program"]

# Bytes of output kept for the error message, from its end: where a program says why it failed. No more is ever held.
_OUTPUT_KEPT: Final = 4096
# Seconds that are left to read what an ended program printed last.
_LAST_WORDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended: ``code`` is None when its time ran out; ``output`` the end of what it printed."""

    code: int | None
    output: str


def run_program(
    argv: Sequence[str],
    *,
    folder: Path,
    timeout: float,
    environment: Mapping[str, str],
    on_line: Callable[[str], None] = lambda _: None,
) -> Completed:
    """Run ``argv`` in ``folder`` with nothing but ``environment``, for at most ``timeout`` seconds.

    When the program has ended or its time has run out, it is killed with all of its process group (on Windows, it
    alone).

    Args:
        argv: the program and its arguments; no shell.
        folder: where it runs.
        timeout: seconds.
        environment: all of it.
        on_line: told of each line as it is printed, from another thread. A line is ended by a line break or by a
            carriage return, with which programs draw over what they printed before.

    Raises:
        OSError: it could not be started.

    """
    process = subprocess.Popen(  # noqa: S603  # the command comes from signed or local configuration, without a shell
        list(argv),
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        bufsize=0,
    )
    output = _Output(process.stdout, on_line)
    code: int | None
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        _kill_group(process)
        output.end()
    return Completed(code, output.tail)


class _Output:
    """Reads what a program prints, in a thread of its own, and keeps the end of it."""

    def __init__(self, pipe: IO[bytes] | None, on_line: Callable[[str], None]) -> None:
        self._pipe = pipe
        self._on_line = on_line
        self._kept = b""
        # A daemon: who left the process group and kept the pipe may print for ever, and we do not wait for it.
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    @property
    def tail(self) -> str:
        return self._kept.decode(errors="replace").strip()

    def end(self) -> None:
        """Wait until what was printed has been read."""
        self._thread.join(_LAST_WORDS)

    def _follow(self) -> None:
        begun = b""
        with contextlib.ExitStack() as stack:
            pipe = stack.enter_context(self._pipe) if self._pipe else None
            while pipe and (block := pipe.read(_OUTPUT_KEPT)):
                self._kept = (self._kept + block)[-_OUTPUT_KEPT:]
                *lines, begun = re.split(rb"[\r\n]", begun + block)
                begun = begun[-_OUTPUT_KEPT:]  # a line without an end
                for line in filter(None, lines):
                    self._on_line(line.decode(errors="replace"))
        if begun:
            self._on_line(begun.decode(errors="replace"))


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
