"""Running a program with a bound on its time and its output, and leaving none of its children behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

__all__ = ["Completed", "follow_program", "run_program"]

# Bytes of output kept for the error message, from its end: where a program says why it failed.
_OUTPUT_KEPT: Final = 4096


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended: ``code`` is None when its time ran out; ``output`` the end of what it printed."""

    code: int | None
    output: str


def run_program(argv: Sequence[str], *, folder: Path, timeout: float, environment: Mapping[str, str]) -> Completed:
    """Run ``argv`` in ``folder`` with nothing but ``environment``, for at most ``timeout`` seconds.

    Raises:
        OSError: it could not be started.

    """
    # A file, not a pipe: a grandchild that keeps a pipe open would keep us waiting for it.
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603  # the command comes from signed or local configuration, without a shell
            list(argv),
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code: int | None
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _kill_group(process)
        return Completed(code, _tail(output))


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - _OUTPUT_KEPT))
    return output.read().decode(errors="replace").strip()


def follow_program(
    argv: Sequence[str],
    *,
    folder: Path,
    timeout: float,
    environment: Mapping[str, str],
    on_line: Callable[[str], None],
) -> Completed:
    """Run a program as :func:`run_program` does, and hand on each line as it is printed.

    A line is ended by a line break or by a carriage return, with which programs draw over what they printed before.

    Raises:
        OSError: it could not be started.

    """
    process = subprocess.Popen(  # noqa: S603  # the command comes from local configuration, without a shell
        list(argv),
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    expired = threading.Event()

    def end() -> None:
        expired.set()
        _kill_group(process)

    # Killing the group ends every child that holds the pipe, and with it the reading below.
    timer = threading.Timer(timeout, end)
    timer.start()
    kept = b""
    try:
        pipe = process.stdout
        assert pipe is not None  # noqa: S101  # asked for above
        with pipe:
            begun = b""
            while block := pipe.read1(_OUTPUT_KEPT):  # type: ignore[attr-defined]  # a buffered reader
                kept = (kept + block)[-_OUTPUT_KEPT:]
                *lines, begun = re.split(rb"[\r\n]", (begun + block)[-_OUTPUT_KEPT:])
                for line in filter(None, lines):
                    on_line(line.decode(errors="replace"))
            if begun:
                on_line(begun.decode(errors="replace"))
        code: int | None = process.wait(timeout)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        timer.cancel()
        _kill_group(process)
    return Completed(None if expired.is_set() else code, kept.decode(errors="replace").strip())
