"""What every storage keeps to when it is read: a folder, its twin in memory, mirrors, and two web servers."""

from __future__ import annotations

import contextlib
import queue
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from instar.errors import NotFound, Untrusted
from instar.server import Serving, serve
from instar.storage import READ_BLOCK, HttpOptions, HttpReader, LocalStorage, MemoryStorage, MirrorReader, Reader
from instar.testing.http import FaultyServer, Status

PACK = f"packs/ab/{'ab' * 32}.pack"
MANIFEST = f"targets/app/{'0c' * 32}.linux-x86_64-1!1.0+local.1.manifest"
LARGE = random.Random(7).randbytes(3 * READ_BLOCK + 12345)
OBJECTS = {
    "metadata/timestamp.json": b'{"signed": {}}',
    "metadata/1.root.json": b"{}",
    "metadata/1.%2Fodd..role.json": b"a role with a slash in its name",
    MANIFEST: b"",
    PACK: LARGE,
}


@contextlib.contextmanager
def granian(root: Path) -> Iterator[str]:
    up: queue.Queue[Serving] = queue.Queue()
    thread = threading.Thread(target=serve, args=(root, "127.0.0.1", 0, up.put))
    thread.start()
    serving = up.get(timeout=60)
    try:
        yield serving.url
    finally:
        serving.stop()
        thread.join(60)


@pytest.fixture(scope="module", params=["local", "memory", "instar serve", "plain web server", "mirrors"])
def reader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    local = LocalStorage(tmp_path_factory.mktemp("storage"))
    memory = MemoryStorage()
    for key, data in OBJECTS.items():
        local.write(key, data)
        memory.write(key, data)
    with contextlib.ExitStack() as stack:
        match request.param:
            case "local":
                yield local
            case "memory":
                yield memory
            case "instar serve":
                yield stack.enter_context(HttpReader(stack.enter_context(granian(local.root))))
            case "plain web server":
                yield stack.enter_context(HttpReader(stack.enter_context(FaultyServer(memory)).url))
            case _:
                broken = stack.enter_context(FaultyServer(memory))
                broken.fault(Status(500), times=None)
                yield stack.enter_context(MirrorReader([HttpReader(broken.url, HttpOptions(attempts=1)), memory]))


def part(reader: Reader, key: str, start: int = 0, length: int | None = None) -> bytes:
    with reader.stream(key, start=start, length=length) as blocks:
        return b"".join(blocks)


@pytest.mark.parametrize("key", OBJECTS)
def test_an_object_is_read_as_it_was_written(reader: Reader, key: str) -> None:
    assert reader.read(key, limit=len(LARGE)) == OBJECTS[key]
    assert part(reader, key) == OBJECTS[key]


def test_an_object_may_be_as_long_as_the_limit_and_not_a_byte_longer(reader: Reader) -> None:
    key = "metadata/timestamp.json"
    size = len(OBJECTS[key])
    assert len(reader.read(key, limit=size)) == size
    with pytest.raises(Untrusted, match="longer than the"):
        reader.read(key, limit=size - 1)


@pytest.mark.parametrize(
    ("start", "length"),
    [
        (0, 0),
        (0, 1),
        (0, len(LARGE)),
        (1, 5),
        (READ_BLOCK - 1, 2),
        (READ_BLOCK, READ_BLOCK + 1),
        (len(LARGE) - 1, 1),
        (len(LARGE) - 1, None),
        (len(LARGE), None),
        (len(LARGE), 0),
        (77, None),
    ],
)
def test_a_part_is_exactly_what_was_asked_for(reader: Reader, start: int, length: int | None) -> None:
    end = len(LARGE) if length is None else start + length
    assert part(reader, PACK, start, length) == LARGE[start:end]


def test_blocks_are_bounded_and_never_empty(reader: Reader) -> None:
    with reader.stream(PACK) as blocks:
        sizes = [len(block) for block in blocks]
    assert 0 < min(sizes) <= max(sizes) <= READ_BLOCK


@pytest.mark.parametrize(
    ("key", "start", "length"),
    [
        (PACK, len(LARGE) - 1, 2),
        (PACK, len(LARGE), 1),
        (PACK, len(LARGE) + 1, 1),
        (PACK, len(LARGE) + 1, None),
        (PACK, 0, len(LARGE) + 1),
        (MANIFEST, 0, 1),
    ],
)
def test_an_object_that_ends_too_early_is_not_believed(reader: Reader, key: str, start: int, length: int) -> None:
    with pytest.raises(Untrusted, match="shorter than promised"):
        part(reader, key, start, length)


@pytest.mark.parametrize("key", ["metadata/2.root.json", f"packs/00/{'00' * 32}.pack", "metadata/1.root.json/x"])
def test_what_is_not_there_is_not_found(reader: Reader, key: str) -> None:
    with pytest.raises(NotFound):
        reader.read(key, limit=10)
    with pytest.raises(NotFound):
        part(reader, key)
    with pytest.raises(NotFound):
        part(reader, key, 5, 5)
    with pytest.raises(NotFound):
        reader.stat(key)


@pytest.mark.parametrize("key", ["metadata", "packs/ab"])
def test_a_folder_is_not_an_object(reader: Reader, key: str) -> None:
    with pytest.raises(NotFound):
        reader.read(key, limit=10)
    with pytest.raises(NotFound):
        reader.stat(key)


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../secret", "metadata/../x", "a//b", "a\\b", ".incoming/x", "a b"])
def test_a_key_that_nothing_can_have_is_refused_before_anything_is_asked(reader: Reader, key: str) -> None:
    before = reader.traffic
    for ask in (lambda: reader.read(key, limit=10), lambda: part(reader, key), lambda: reader.stat(key)):
        with pytest.raises(Untrusted, match="cannot be the key"):
            ask()
    assert reader.traffic == before


@pytest.mark.parametrize(("start", "length"), [(-1, 5), (0, -1)])
def test_a_part_before_the_beginning_is_a_mistake_of_the_caller(reader: Reader, start: int, length: int) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        part(reader, PACK, start, length)


@pytest.mark.parametrize("key", OBJECTS)
def test_the_size_is_told(reader: Reader, key: str) -> None:
    assert reader.stat(key).size == len(OBJECTS[key])


def test_leaving_in_the_middle_is_fine_and_the_reader_goes_on(reader: Reader) -> None:
    for _ in range(10):
        with reader.stream(PACK) as blocks:
            assert LARGE.startswith(next(blocks))
    assert reader.read("metadata/1.root.json", limit=10) == b"{}"


def test_what_the_caller_raises_while_reading_is_not_translated(reader: Reader) -> None:
    class MineError(OSError):
        pass

    def work() -> None:
        with reader.stream(PACK) as blocks:
            for _ in blocks:
                raise MineError

    with pytest.raises(MineError):
        work()


def test_several_threads_read_at_once(reader: Reader) -> None:
    starts = [n * 9999 for n in range(60)]
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda start: part(reader, PACK, start, 5000), starts))
    assert parts == [LARGE[start : start + 5000] for start in starts]


def test_a_reader_names_its_sources(reader: Reader) -> None:
    assert [source.read("metadata/1.root.json", limit=10) for source in reader.alternatives()[:1]] == [b"{}"]


def test_a_closed_reader_can_be_used_again(reader: Reader) -> None:
    reader.close()
    assert reader.read("metadata/1.root.json", limit=10) == b"{}"
