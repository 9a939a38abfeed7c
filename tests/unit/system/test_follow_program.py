import sys
from pathlib import Path

import pytest

from instar.system.process import Completed, run_program

PROGRAM = "import sys; sys.stdout.write('  0% a\\r 50% b\\nlast'); sys.stdout.flush(); sys.exit(3)"


def follow(program: str, timeout: float = 30) -> tuple[Completed, list[str]]:
    lines: list[str] = []
    argv = [sys.executable, "-c", program]
    return run_program(argv, folder=Path(), timeout=timeout, environment={}, on_line=lines.append), lines


def test_each_line_is_handed_on_and_the_end_is_told() -> None:
    ended, lines = follow(PROGRAM)
    assert lines == ["  0% a", " 50% b", "last"]
    assert ended.code == 3
    assert ended.output.endswith("last")


def test_a_program_that_takes_too_long_is_ended_with_its_children() -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    ended, _ = follow(child, timeout=1)
    assert ended.code is None


def test_a_program_that_is_not_there_is_said() -> None:
    with pytest.raises(OSError, match="none"):
        run_program(["/none"], folder=Path(), timeout=1, environment={}, on_line=print)
