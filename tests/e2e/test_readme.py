"""The README cannot lie: its commands are run as they stand, and what it says of ``--help`` is compared."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"<!-- (run|compare): (?P<name>[^>]+) -->\n```\w+\n(?P<text>.*?)```", re.DOTALL)


def blocks() -> dict[str, str]:
    return {match["name"].strip(): match["text"] for match in BLOCK.finditer(README.read_text())}


def environment() -> dict[str, str]:
    # As a user has it: `instar` is found on the PATH.
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "80"}


def commands_of(text: str) -> dict[str, str]:
    rows = re.findall(r"^  (\w+)  +(.+)$", text.partition("Commands:")[2], re.MULTILINE)
    return dict(rows)


def test_the_commands_in_the_readme_are_those_of_the_program() -> None:
    done = subprocess.run(["instar", "--help"], capture_output=True, text=True, check=True, env=environment())
    assert commands_of(done.stdout)
    assert commands_of(blocks()["instar --help"]) == commands_of(done.stdout)


@pytest.mark.timeout(300)
def test_the_commands_in_the_readme_do_what_it_says(tmp_path: Path) -> None:
    for version in ("1.0", "1.1"):
        bundle = tmp_path / "dist" / f"myapp-{version}"
        bundle.mkdir(parents=True)
        (bundle / "myapp").write_text(f"#!/bin/sh\necho myapp {version}\n")
        (bundle / "myapp").chmod(0o755)
    (tmp_path / "notes-1.0.txt").write_text("The first one.")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    found = blocks()
    wait = f"for i in $(seq 300); do (: >/dev/tcp/127.0.0.1/{port}) 2>/dev/null && break; sleep 0.1; done\n"
    script = "set -eu\ntrap 'kill $(jobs -p)' EXIT\n"
    script += found["publish"] + wait + found["install"] + found["update"] + "myapp/current/myapp --version\n"
    done = subprocess.run(
        ["bash", "-c", script.replace("8000", str(port))],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout.splitlines()
    assert "myapp 1.0" in printed
    assert printed[-1] == "myapp 1.1"
