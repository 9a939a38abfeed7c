"""What every storage that can be written keeps to: the folder, and its twin in memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from instar.errors import Busy, Conflict, InstarError, NotFound, Untrusted
from instar.storage import LocalStorage, MemoryStorage, Storage

KEY = "metadata/timestamp.json"


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    # The folder is not there yet: it comes with the first object.
    return LocalStorage(tmp_path / "deep" / "storage") if request.param == "local" else MemoryStorage()


@pytest.fixture(params=["bytes", "file"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> bytes | Path:
    data = b"content" * 1000
    if request.param == "bytes":
        return data
    path = tmp_path / "source"
    path.write_bytes(data)
    return path


def content(source: bytes | Path) -> bytes:
    return source.read_bytes() if isinstance(source, Path) else source


def test_what_is_written_is_there(storage: Storage, source: bytes | Path) -> None:
    storage.write("packs/ab/x.pack", source)
    assert storage.read("packs/ab/x.pack", limit=10_000) == content(source)


def test_writing_again_replaces(storage: Storage, source: bytes | Path) -> None:
    storage.write(KEY, b"old")
    storage.write(KEY, source)
    assert storage.read(KEY, limit=10_000) == content(source)


def test_a_reader_of_the_old_content_keeps_it(storage: Storage) -> None:
    storage.write(KEY, b"old" * 300_000)
    with storage.stream(KEY) as blocks:
        first = next(blocks)
        storage.write(KEY, b"new" * 300_000)
        assert first + b"".join(blocks) == b"old" * 300_000


def test_what_is_created_is_there(storage: Storage, source: bytes | Path) -> None:
    storage.create("packs/ab/x.pack", source)
    assert storage.read("packs/ab/x.pack", limit=10_000) == content(source)


def test_creating_the_same_again_is_fine(storage: Storage, source: bytes | Path) -> None:
    storage.create(KEY, source)
    storage.create(KEY, source)
    storage.create(KEY, content(source))


@pytest.mark.parametrize("other", [b"other", b"", b"content" * 999 + b"Content", b"content" * 1001])
def test_creating_what_exists_with_other_content_is_a_conflict(
    storage: Storage, source: bytes | Path, other: bytes
) -> None:
    storage.create(KEY, other)
    with pytest.raises(Conflict, match="already holds another"):
        storage.create(KEY, source)
    assert storage.read(KEY, limit=10_000) == other


def test_of_many_who_create_at_once_one_wins_and_the_others_are_told(storage: Storage) -> None:
    start = threading.Barrier(8)

    def create(number: int) -> bool:
        start.wait()
        try:
            storage.create(KEY, b"%d" % number)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert sum(won) == 1
    assert storage.read(KEY, limit=10) == b"%d" % won.index(True)


def test_replacing_needs_the_tag_of_what_is_there(storage: Storage) -> None:
    storage.replace(KEY, b"one", expected=None)
    storage.replace(KEY, b"two", expected=storage.stat(KEY).etag)
    assert storage.read(KEY, limit=10) == b"two"


def test_replacing_what_somebody_else_changed_is_a_conflict(storage: Storage) -> None:
    storage.write(KEY, b"one")
    seen = storage.stat(KEY).etag
    storage.write(KEY, b"two")
    with pytest.raises(Conflict, match="changed"):
        storage.replace(KEY, b"mine", expected=seen)
    with pytest.raises(Conflict, match="changed"):
        storage.replace(KEY, b"mine", expected=None)
    assert storage.read(KEY, limit=10) == b"two"


def test_replacing_what_somebody_removed_is_a_conflict(storage: Storage) -> None:
    storage.write(KEY, b"one")
    seen = storage.stat(KEY).etag
    storage.delete(KEY)
    with pytest.raises(Conflict, match="changed"):
        storage.replace(KEY, b"mine", expected=seen)


def test_of_many_who_replace_at_once_one_wins(storage: Storage) -> None:
    storage.write(KEY, b"old")
    seen = storage.stat(KEY).etag
    start = threading.Barrier(8)

    def replace(number: int) -> bool:
        start.wait()
        try:
            storage.replace(KEY, b"%d" % number, expected=seen)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(replace, range(8)))
    assert sum(won) == 1
    assert storage.read(KEY, limit=10) == b"%d" % won.index(True)


def test_the_tag_changes_with_the_content(storage: Storage) -> None:
    storage.write(KEY, b"one")
    one = storage.stat(KEY)
    storage.write(KEY, b"two")
    two = storage.stat(KEY)
    assert one.etag is not None
    assert one.etag != two.etag


def test_what_is_deleted_is_gone_and_deleting_it_again_is_fine(storage: Storage) -> None:
    storage.delete("packs/ab/never.pack")
    storage.write(KEY, b"one")
    storage.delete(KEY)
    storage.delete(KEY)
    with pytest.raises(NotFound):
        storage.read(KEY, limit=10)


def test_the_listing_is_ordered_and_complete(storage: Storage) -> None:
    keys = ["packs/ab/b.pack", "metadata/10.root.json", "packs/a/c.pack", "metadata/1.root.json", "top"]
    for number, key in enumerate(keys):
        storage.write(key, bytes(number))
    listed = list(storage.list())
    assert [(entry.key, entry.size) for entry in listed] == sorted((key, n) for n, key in enumerate(keys))
    assert all(abs(entry.modified - datetime.now(UTC)) < timedelta(minutes=5) for entry in listed)


@pytest.mark.parametrize(
    ("prefix", "found"),
    [
        ("packs/", ["packs/a/c.pack", "packs/ab/b.pack"]),
        ("packs/a", ["packs/a/c.pack", "packs/ab/b.pack"]),
        ("packs/a/", ["packs/a/c.pack"]),
        ("pack", ["packs/a/c.pack", "packs/ab/b.pack"]),
        ("packs/a/c.pack", ["packs/a/c.pack"]),
        ("packs/a/c.pack/", []),
        ("other/", []),
        ("metadata/1.", []),
    ],
)
def test_a_listing_can_be_limited_to_a_prefix(storage: Storage, prefix: str, found: list[str]) -> None:
    for key in ("packs/a/c.pack", "packs/ab/b.pack", "metadata/10.root.json"):
        storage.write(key, b"x")
    assert [entry.key for entry in storage.list(prefix)] == found


def test_an_empty_storage_lists_nothing(storage: Storage) -> None:
    assert list(storage.list()) == []
    assert list(storage.list("packs/")) == []


@pytest.mark.parametrize("prefix", ["/", "../", "a/../", ".", "a//", "a b"])
def test_no_listing_reaches_outside(storage: Storage, prefix: str) -> None:
    with pytest.raises(Untrusted):
        storage.list(prefix)


@pytest.mark.parametrize("key", ["", "/tmp/x", "../x", "a/../../x", "a/./b", "a//b", ".hidden", "a/.hidden", "a\0b"])
def test_nothing_is_written_outside(storage: Storage, key: str, tmp_path: Path) -> None:
    for change in (
        lambda: storage.write(key, b"x"),
        lambda: storage.create(key, b"x"),
        lambda: storage.replace(key, b"x", expected=None),
        lambda: storage.delete(key),
    ):
        with pytest.raises(Untrusted):
            change()
    assert list(tmp_path.rglob("*")) == []


def test_a_source_that_cannot_be_read_changes_nothing(storage: Storage, tmp_path: Path) -> None:
    storage.write(KEY, b"old")
    for change in (storage.write, storage.create):
        with pytest.raises(InstarError):
            change(KEY, tmp_path / "missing")
    assert storage.read(KEY, limit=10) == b"old"
    assert [entry.key for entry in storage.list()] == [KEY]


def test_one_publisher_at_a_time(storage: Storage) -> None:
    with storage.hold(), pytest.raises(Busy), storage.hold():
        pytest.fail("two publishers hold it")
    with storage.hold():
        storage.write(KEY, b"one")


def test_whoever_holds_the_storage_can_change_everything(storage: Storage) -> None:
    with storage.hold():
        storage.create("packs/ab/x.pack", b"x")
        storage.replace(KEY, b"one", expected=None)
        storage.delete("packs/ab/x.pack")
        assert storage.remove_leftovers() == 0
    assert [entry.key for entry in storage.list()] == [KEY]


def test_the_storage_is_free_again_after_a_failure(storage: Storage) -> None:
    with pytest.raises(RuntimeError), storage.hold():
        raise RuntimeError
    with storage.hold():
        pass
