"""Runs a program and says what it cost: wall time, processor time, peak memory of all its processes together.

Knows nothing of what is measured. Memory is resident memory, summed over the process and its descendants and sampled
every 20 ms from the kernel's process table, and never less than the kernel's own high-water mark of the largest one.
Not `ru_maxrss`: a child inherits its parent's there, so that a small program seems as large as this benchmark.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import IO

# Short against the steps measured (0.3 s and longer), long enough not to be a load itself.
_SAMPLE_SECONDS = 0.02

# The exit code that the shell's `timeout` uses too.
TIMED_OUT = 124


@dataclass(frozen=True)
class Measured:
    """What one run cost.

    Attributes:
        seconds: wall time.
        cpu_seconds: processor time of the process and all its descendants that it waited for.
        peak_memory: bytes, resident, all processes together.
        exit_code: 0 is success; 124 means that it was ended after the time allowed.
        output: what it wrote to its standard output.
    """

    seconds: float
    cpu_seconds: float
    peak_memory: int
    exit_code: int
    output: str

    def as_json(self) -> dict[str, float | int]:
        """The figures without the output, rounded for people."""
        values = asdict(self)
        del values["output"]
        return values | {"seconds": round(self.seconds, 3), "cpu_seconds": round(self.cpu_seconds, 3)}


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    limit_seconds: float | None = None,
    log: Path | None = None,
) -> Measured:
    """Run `argv` to its end and measure it.

    Args:
        argv: program and arguments, no shell.
        cwd: where it runs.
        env: variables added to ours.
        limit_seconds: after this many seconds it is ended and the exit code is `TIMED_OUT`.
        log: where its standard error goes; ours when absent.
    """
    with _opened(log) as errors:
        started = time.monotonic()
        process = subprocess.Popen(
            [str(a) for a in argv], cwd=cwd, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=errors
        )
        sampler = _Sampler(process.pid)
        sampler.start()
        expired = threading.Event()

        def end() -> None:
            expired.set()
            process.kill()

        timer = threading.Timer(limit_seconds, end) if limit_seconds else None
        if timer:
            timer.start()
        assert process.stdout is not None
        with process.stdout as pipe:
            output = pipe.read()
        # wait4 rather than Popen.wait: it hands over the resource usage of exactly this child and its descendants.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if timer:
            timer.cancel()
        sampler.finish()
    return Measured(
        seconds=seconds,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_memory=sampler.peak,
        exit_code=TIMED_OUT if expired.is_set() else process.returncode,
        output=output.decode(errors="replace"),
    )


def _opened(path: Path | None) -> AbstractContextManager[IO[bytes] | None]:
    return path.open("ab") if path else nullcontext()


class _Sampler(threading.Thread):
    """Keeps the highest sum of resident memory over a process and its descendants."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._done = threading.Event()
        self.peak = 0

    def run(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            self.peak = max(self.peak, *_resident_tree(self._pid))

    def finish(self) -> None:
        self._done.set()
        self.join()


def _resident_tree(root: int) -> tuple[int, int]:
    """Bytes resident in `root` and its descendants now, and the highest that any one of them ever had."""
    total, highest, waiting = 0, 0, [root]
    while waiting:
        pid = waiting.pop()
        try:
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            total += _kilobytes(status["VmRSS"])
            highest = max(highest, _kilobytes(status["VmHWM"]))
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except (OSError, KeyError, ValueError):
            # It ended between two looks.
            continue
    return total, highest


def _kilobytes(text: str) -> int:
    return int(text.split(maxsplit=1)[0]) * 1024


def machine() -> dict[str, str | int]:
    """What the figures were measured on: cores, memory in bytes, processor, operating system, Python."""
    import platform  # noqa: PLC0415 - only needed here

    model = platform.processor() or "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next((line.split(":", 1)[1].strip() for line in cpuinfo.open() if line.startswith("model name")), model)
    return {
        "cores": os.cpu_count() or 1,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "processor": model,
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "python": platform.python_version(),
    }
