"""The device dies, or its disk refuses, at every step of refreshing its metadata: it heals, and trusts no less."""

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from instar.errors import Unavailable, Untrusted
from instar.system import files
from instar.testing.clock import FakeClock
from instar.testing.crash import DISK_FULL, KILL, READ_ONLY, Fault, every_step
from instar.testing.repository import TwinRepository, restore, saved
from instar.trust.roles import Authority
from instar.trust.verify import TrustedMetadata

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the child process is made by fork")

NOW = datetime.now(UTC)
CHANNELS = "app/channels.json"


@pytest.fixture
def folder() -> Iterator[Path]:
    # In memory where the machine has it: every attempt syncs.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def look(twin: TwinRepository, cache: Path) -> TrustedMetadata:
    device = TrustedMetadata(cache, root=twin.root, fetch=twin.fetch, clock=FakeClock(NOW))
    device.refresh()
    assert device.target(CHANNELS) is not None
    return device


@pytest.mark.parametrize("fault", [KILL, DISK_FULL, READ_ONLY], ids=["killed", "disk full", "read-only"])
@pytest.mark.parametrize("first", [True, False], ids=["first refresh", "later refresh"])
def test_a_refresh_interrupted_at_any_step_heals(folder: Path, fault: Fault, *, first: bool) -> None:
    twin = TwinRepository(now=NOW)
    twin.put(CHANNELS, b"old")
    look(twin, folder / "before")
    old = saved(twin.storage)
    twin.put(CHANNELS, b"new")
    with twin.edit() as roles:
        roles.set_keys(Authority.OWNER, [twin.owner.public_key])
    new = saved(twin.storage)

    def prepare(number: int) -> tuple[Path, Callable[[], object]]:
        cache = folder / str(number)
        cache.mkdir()
        if not first:
            cache.rmdir()
            shutil.copytree(folder / "before", cache, symlinks=True)
        return cache, lambda: look(twin, cache)

    attempts = 0
    for _, cache, ended in every_step(prepare, fault=fault):
        attempts += 1
        assert ended.killed or ended.finished or "InstallFailed" in ended.families, ended.trace
        offline = TrustedMetadata(cache, root=twin.root, fetch=twin.fetch, clock=FakeClock(NOW))
        with contextlib.suppress(Unavailable):
            offline.load()
        look(twin, cache)
        restore(twin.storage, old)
        with pytest.raises(Untrusted):
            look(twin, cache)
        restore(twin.storage, new)
        assert not [path for path in cache.iterdir() if "tmp" in path.name]
        files.remove_tree(cache)
    assert attempts > 5
