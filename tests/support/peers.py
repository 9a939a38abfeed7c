"""Other people's programs, unmodified, each in an environment of its own made from hash-pinned requirements."""

import fcntl
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def peer_python(name: str) -> Path:
    """The interpreter of a peer's environment; made when it is missing or its pins have changed."""
    pins = ROOT / "requirements" / f"peer-{name}.txt"
    folder = ROOT / ".cache" / f"peer-{name}"
    python, made_from = folder / "bin" / "python", folder / "made-from.txt"
    folder.parent.mkdir(exist_ok=True)
    # Tests run in several processes.
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made_from.exists() or made_from.read_text() != pins.read_text():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*pip, "--require-hashes", "--requirement", pins], check=True)
            made_from.write_text(pins.read_text())
    return python
