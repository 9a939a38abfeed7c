"""Writing to a folder, interrupted at every step: the old object or the new one, whole, and the next run works."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from instar.storage import LocalStorage
from instar.testing import crash

KEY = "metadata/timestamp.json"
OLD = b"old" * 100
NEW = b"new" * 1000

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the child process is made by fork")

Change = Callable[[LocalStorage, Path], None]


def write(storage: LocalStorage, source: Path) -> None:
    storage.write(KEY, source)


def write_bytes(storage: LocalStorage, source: Path) -> None:
    storage.write(KEY, source.read_bytes())


def replace(storage: LocalStorage, source: Path) -> None:
    storage.replace(KEY, source.read_bytes(), expected=storage.stat(KEY).etag)


def create(storage: LocalStorage, source: Path) -> None:
    storage.create("packs/ab/new.pack", source)


def delete(storage: LocalStorage, source: Path) -> None:
    del source
    storage.delete(KEY)


@pytest.mark.parametrize("fault", [crash.KILL, crash.DISK_FULL, crash.READ_ONLY], ids=["killed", "full", "read-only"])
@pytest.mark.parametrize("change", [write, write_bytes, replace, create, delete])
def test_interrupted_at_any_step_the_storage_is_whole_and_the_next_run_works(
    tmp_path: Path, change: Change, fault: crash.Fault
) -> None:
    source = tmp_path / "source"
    source.write_bytes(NEW)

    def prepare(at: int) -> tuple[Path, Callable[[], object]]:
        storage = LocalStorage(tmp_path / str(at))
        storage.write(KEY, OLD)
        return storage.root, lambda: change(storage, source)

    steps = 0
    for _, folder, ended in crash.every_step(prepare, fault=fault):
        steps += 1
        assert ended.killed or ended.finished or "InstarError" in ended.families, ended.trace
        storage = LocalStorage(folder)
        found = {entry.key: storage.read(entry.key, limit=10_000) for entry in storage.list()}
        assert all(data in {OLD, NEW} for data in found.values())
        if change is not delete:
            assert KEY in found
        with storage.hold():
            storage.remove_leftovers()
            if KEY in found:
                change(storage, source)
            assert storage.remove_leftovers() == 0
        expected = {create: {KEY: OLD, "packs/ab/new.pack": NEW}, delete: {}}.get(change, {KEY: NEW})
        assert {entry.key: storage.read(entry.key, limit=10_000) for entry in storage.list()} == expected
    assert steps >= (1 if change is delete else 3)
