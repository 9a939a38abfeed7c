import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from instar.errors import Busy
from instar.system.locks import exclusive
from instar.system.process import run_program

ENVIRONMENT = {"PATH": os.environ["PATH"]}


def test_a_lock_that_is_held_is_busy_and_free_again_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive(path, what="it"), pytest.raises(Busy, match="working on it"), exclusive(path, what="it"):
        pass
    with exclusive(path, what="it"):
        pass


def test_a_lock_dies_with_the_process_that_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = """
import sys, time
from pathlib import Path
from instar.system.locks import exclusive
with exclusive(Path(sys.argv[1]), what="x"):
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(Busy), exclusive(path, what="x"):
            pass
        process.kill()
        process.wait()
        with exclusive(path, what="x"):
            pass


def test_a_program_gives_its_code_and_the_end_of_its_output(tmp_path: Path) -> None:
    code = "import os; print('x' * 10_000 + 'end'); print(sorted(os.environ), os.getcwd()); raise SystemExit(3)"
    done = run_program([sys.executable, "-c", code], folder=tmp_path, timeout=30, environment={"ONLY": "this"})
    assert done.code == 3
    assert "'ONLY'" in done.output
    assert "'HOME'" not in done.output
    assert str(tmp_path.resolve()) in done.output
    assert len(done.output) <= 4096


def test_a_program_whose_time_runs_out_is_stopped_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    start = time.monotonic()
    done = run_program(
        ["sh", "-c", f"sleep 60 & echo $! > {pid_file}; wait"], folder=tmp_path, timeout=0.5, environment=ENVIRONMENT
    )
    assert done.code is None
    assert time.monotonic() - start < 20
    stat = Path(f"/proc/{pid_file.read_text().strip()}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"


def test_what_a_program_prints_is_told_line_by_line_and_only_its_end_is_held(tmp_path: Path) -> None:
    lines: list[str] = []
    script = (
        "printf '1%%\\r2%%\\nlast words'; i=0; while [ $i -lt 3000 ]; do echo 0123456789; i=$((i+1)); done; echo end"
    )
    done = run_program(["sh", "-c", script], folder=tmp_path, timeout=60, environment=ENVIRONMENT, on_line=lines.append)
    assert lines[:3] == ["1%", "2%", "last words0123456789"]
    assert len(lines) == 3003
    assert done.output.endswith("end")
    assert len(done.output) <= 4096


def test_a_stray_that_keeps_the_output_open_is_not_waited_for(tmp_path: Path) -> None:
    start = time.monotonic()
    code = "import os, time; os.fork() or (os.setsid(), print('stray', flush=True), time.sleep(30))"
    done = run_program([sys.executable, "-c", code], folder=tmp_path, timeout=60, environment=ENVIRONMENT)
    assert done.code == 0
    assert time.monotonic() - start < 20


def test_a_program_that_does_not_exist_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"."):
        run_program([str(tmp_path / "none")], folder=tmp_path, timeout=5, environment={})
