import sys
import time

from bench.measure import TIMED_OUT, run

_MEGABYTE = 1_000_000


def test_the_memory_of_children_is_counted_with_that_of_their_parent() -> None:
    child = "import time; b = bytearray(60_000_000); time.sleep(0.5)"
    parent = f"import subprocess, sys; c = [subprocess.Popen([sys.executable, '-c', {child!r}]) for _ in '12']"
    measured = run([sys.executable, "-c", parent + "; [p.wait() for p in c]"])
    assert 120 * _MEGABYTE < measured.peak_memory < 200 * _MEGABYTE


def test_time_that_is_slept_is_wall_time_and_no_processor_time() -> None:
    measured = run([sys.executable, "-c", "import time; time.sleep(0.6); print('done')"])
    assert measured.seconds > 0.6
    assert measured.cpu_seconds < 0.6
    assert measured.output == "done\n"
    assert measured.exit_code == 0


def test_what_takes_too_long_is_ended_and_says_so() -> None:
    started = time.monotonic()
    measured = run([sys.executable, "-c", "import time; time.sleep(60)"], limit_seconds=0.3)
    assert measured.exit_code == TIMED_OUT
    assert time.monotonic() - started < 30
