"""What is particular to a folder: links, strange files, leftovers, permissions, other processes."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from instar.errors import Busy, Conflict, InstarError, Misconfigured, NotFound, Unavailable
from instar.storage import LocalStorage
from instar.system import locks
from instar.testing import crash

KEY = "packs/ab/x.pack"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links, modes and named pipes of POSIX")
not_for_root = pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may do everything")


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "storage")


def names(storage: LocalStorage) -> list[str]:
    return [entry.key for entry in storage.list()]


@pytest.mark.parametrize("where", ["the file", "a folder"])
def test_a_link_that_leads_out_is_not_part_of_the_storage(storage: LocalStorage, tmp_path: Path, where: str) -> None:
    secret = tmp_path / "outside" / "x.pack"
    secret.parent.mkdir()
    secret.write_bytes(b"secret")
    (storage.root / "packs").mkdir(parents=True)
    if where == "the file":
        (storage.root / "packs/ab").mkdir()
        (storage.root / KEY).symlink_to(secret)
    else:
        (storage.root / "packs/ab").symlink_to(secret.parent)
    for ask in (lambda: storage.read(KEY, limit=10), lambda: storage.stat(KEY)):
        with pytest.raises(NotFound):
            ask()
    assert names(storage) == []
    with pytest.raises(InstarError):
        storage.create(KEY, b"mine")
    if where == "a folder":
        with pytest.raises(InstarError):
            storage.write(KEY, b"mine")
    assert secret.read_bytes() == b"secret"


def test_a_storage_may_itself_be_behind_a_link(storage: LocalStorage, tmp_path: Path) -> None:
    storage.write(KEY, b"x")
    (tmp_path / "link").symlink_to(storage.root)
    linked = LocalStorage(tmp_path / "link")
    assert linked.read(KEY, limit=10) == b"x"
    linked.write(KEY, b"y")
    assert storage.read(KEY, limit=10) == b"y"


def test_a_named_pipe_is_not_waited_for(storage: LocalStorage) -> None:
    storage.write(KEY, b"x")
    os.mkfifo(storage.root / "packs/ab/pipe")
    with pytest.raises(NotFound):
        storage.read("packs/ab/pipe", limit=10)
    assert names(storage) == [KEY]


def test_files_that_cannot_be_objects_are_not_listed(storage: LocalStorage) -> None:
    storage.write(KEY, b"x")
    for name in (".hidden", "with space", "packs/ab/.x.pack.tmp", "ä"):
        (storage.root / name).write_bytes(b"")
    assert names(storage) == [KEY]


def test_the_leftovers_of_a_killed_writer_are_invisible_and_can_be_removed(storage: LocalStorage) -> None:
    storage.write(KEY, b"x")
    (storage.root / ".incoming/half").write_bytes(b"half")
    (storage.root / ".incoming/folder").mkdir()
    assert names(storage) == [KEY]
    with storage.hold():
        assert storage.remove_leftovers() == 2
        assert storage.remove_leftovers() == 0
    assert storage.read(KEY, limit=10) == b"x"


def test_nothing_is_left_behind_when_all_goes_well(storage: LocalStorage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"z")
    storage.write(KEY, b"x")
    storage.write(KEY, source)
    storage.create(KEY, b"z")
    storage.create("a", source)
    with pytest.raises(Conflict):
        storage.create(KEY, b"y")
    storage.replace("b", b"x", expected=None)
    with storage.hold():
        assert storage.remove_leftovers() == 0


def test_a_source_is_copied_not_linked(storage: LocalStorage, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"old")
    storage.create(KEY, source)
    with source.open("r+b") as file:
        file.write(b"new")
    assert storage.read(KEY, limit=10) == b"old"


def test_large_objects_have_a_tag_that_costs_no_reading(storage: LocalStorage) -> None:
    storage.write(KEY, bytes(5 * 1024 * 1024))
    one = storage.stat(KEY)
    assert one == storage.stat(KEY)
    storage.write(KEY, b"\1" + bytes(5 * 1024 * 1024 - 1))
    assert one.etag != storage.stat(KEY).etag


def test_another_process_that_publishes_keeps_us_out(storage: LocalStorage) -> None:
    storage.write(KEY, b"x")
    with locks.exclusive(storage.root / ".publisher.lock", what="it"), pytest.raises(Busy), storage.hold():
        pytest.fail("held twice")


def test_another_process_that_replaces_is_a_conflict(storage: LocalStorage) -> None:
    storage.write(KEY, b"x")
    with locks.exclusive(storage.root / ".replace.lock", what="it"), pytest.raises(Conflict, match="right now"):
        storage.replace(KEY, b"y", expected=storage.stat(KEY).etag)


def test_a_folder_where_the_object_should_be_is_said(storage: LocalStorage) -> None:
    storage.write(f"{KEY}/deeper", b"x")
    with pytest.raises(Unavailable):
        storage.write(KEY, b"y")
    storage.write("file", b"x")
    with pytest.raises(Unavailable):
        storage.write("file/deeper", b"y")
    with pytest.raises(Unavailable):
        storage.delete(KEY)


@not_for_root
def test_a_folder_that_may_not_be_written_needs_a_person(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    storage = LocalStorage(tmp_path / "storage")
    try:
        with pytest.raises(Misconfigured, match="Give yourself access"):
            storage.write(KEY, b"x")
        with pytest.raises(Misconfigured), storage.hold():
            pass
    finally:
        tmp_path.chmod(0o700)


@not_for_root
def test_a_folder_that_may_not_be_read_does_not_look_empty(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.write(KEY, b"x")
    folder = (tmp_path / KEY).parent
    folder.chmod(0)
    try:
        with pytest.raises(Misconfigured, match="Give yourself access"):
            storage.list()
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize(
    ("fault", "family"),
    [
        (crash.DISK_FULL, "Unavailable"),
        (crash.READ_ONLY, "Misconfigured"),
        (crash.Fail(errno.EACCES), "Misconfigured"),
        (crash.Fail(errno.EIO), "Unavailable"),
    ],
)
def test_a_disk_that_refuses_is_said_in_our_families(storage: LocalStorage, fault: crash.Fail, family: str) -> None:
    storage.write(KEY, b"old")
    for change in (
        lambda: storage.write(KEY, b"new"),
        lambda: storage.create("packs/cd/y.pack", b"new"),
        lambda: storage.replace("t", b"new", expected=None),
    ):
        ended = crash.run(change, below=storage.root, fault=fault, at=1)
        assert ended.reached
        assert family in ended.families
    assert storage.read(KEY, limit=10) == b"old"


def test_where_there_are_no_hard_links_creating_works_and_is_still_exclusive(storage: LocalStorage) -> None:
    storage.write("packs/ab/other.pack", b"")  # so that the folders are there and the steps are the same each time
    steps = crash.steps_of(lambda: storage.create("packs/ab/first.pack", b"x"), below=storage.root)
    at = next(number for number, step in enumerate(steps, 1) if step.startswith("os.link"))
    no_links = crash.Fail(errno.EPERM, lasting=False)
    ended = crash.run(lambda: storage.create(KEY, b"one"), below=storage.root, fault=no_links, at=at)
    assert ended.reached
    assert ended.finished
    assert storage.read(KEY, limit=10) == b"one"
    with pytest.raises(Conflict):
        storage.create(KEY, b"two")
