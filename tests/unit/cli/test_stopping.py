"""Ctrl-C while threads do what cannot be interrupted."""

import signal
import subprocess
import sys
import time

PROGRAM = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from instar.cli.stopping import stopping_soon

with stopping_soon(), ThreadPoolExecutor() as pool:
    job = pool.submit(time.sleep, 60)
    print("begun", flush=True)
    job.result()
"""


def test_the_process_ends_soon_whatever_its_threads_are_in_the_middle_of() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "begun\n"
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert time.monotonic() - begun < 20
        assert process.stderr.read() == "instar: stopped.\n"


def test_what_can_be_interrupted_is_and_clears_up_after_itself() -> None:
    program = "import time\nfrom instar.cli.stopping import stopping_soon\n"
    program += "try:\n    with stopping_soon():\n        print('begun', flush=True)\n        time.sleep(60)\n"
    program += "except KeyboardInterrupt:\n    time.sleep(1.5)\n    print('cleared up')\n"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stdout.read() == "cleared up\n"
