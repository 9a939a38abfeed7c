"""What must not be in the project's files: hosts of package indexes, paths of somebody's machine, keys."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Put together from parts, or this file would find itself.
INDEX_HOSTS = re.compile(
    "|".join(["py" + "pi.org", "python" + "hosted.org", "--(?:extra-)?index" + "-url", "--find" + "-links"])
)
HOME_PATHS = re.compile(
    r"(?<![\w.-])/(?:"
    + "|".join(["home/" + r"(?!(?:me|you|user)\b)\w", "Users/" + r"\w", "root" + r"/\.", "work" + r"/\w"])
    + ")"
)
PRIVATE_KEYS = re.compile("-----BEGIN " + r"(?:\w+ )*PRIVATE KEY-----\n[A-Za-z0-9+/=\n]{40}")


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Every tracked text file by its name."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    found = {}
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file():
            data = path.read_bytes()
            if b"\0" not in data[:8192]:
                found[name] = data.decode("utf-8")
    return found


@pytest.mark.parametrize(
    "pattern", [INDEX_HOSTS, HOME_PATHS, PRIVATE_KEYS], ids=["index-host", "home-path", "private-key"]
)
def test_no_tracked_file_holds(pattern: re.Pattern[str], texts: dict[str, str]) -> None:
    allowed = {"scripts/lock"} if pattern is INDEX_HOSTS else set()
    hits = {name: match[0] for name, text in texts.items() if name not in allowed and (match := pattern.search(text))}
    assert hits == {}


def test_every_pinned_requirement_has_a_hash() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        for block in re.split(r"\n(?=\S)", path.read_text()):
            if "==" in block.split("\n")[0] and not block.startswith("#"):
                assert "--hash=sha256:" in block, f"{path.name}: {block.splitlines()[0]}"


def test_no_lock_file_with_addresses_is_tracked(texts: dict[str, str]) -> None:
    assert [name for name in texts if Path(name).name in {"uv.lock", "poetry.lock", "pdm.lock"}] == []
