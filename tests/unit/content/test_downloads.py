import os
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import pytest

from instar.content.downloads import Downloads
from instar.errors import Cancelled, InstallFailed, NotFound, Unavailable, Untrusted
from instar.model.digest import Digest
from instar.model.manifest import Manifest
from instar.model.names import Name, ProductName
from instar.model.progress import Progress
from instar.model.version import Version
from instar.policy.route import MAX_GAP, Means, Piece, Plan, group_pieces
from instar.storage.keys import Key
from instar.storage.ports import READ_BLOCK, Reader, Stat
from tests.support.releases_on_disk import some_bytes

EMPTY = Manifest(ProductName("app"), Version("1"), Name("linux-x86_64"), ())


class Server(Reader):
    """A storage that counts what it gives, and that a test can make fail."""

    def __init__(self, **objects: bytes) -> None:
        self.objects = {key_of(name): data for name, data in objects.items()}
        self.given = 0
        self.requests: list[tuple[str, int, int | None]] = []
        self.before_block: Callable[[str, int], None] = lambda _key, _at: None
        self.others: Sequence[Reader] = ()
        self._lock = threading.Lock()

    def alternatives(self) -> Sequence[Reader]:
        return self.others or (self,)

    def _blocks(self, key: Key, start: int, length: int | None) -> Generator[bytes]:
        self.requests.append((key, start, length))
        if key not in self.objects:
            raise FileNotFoundError(key)
        data = self.objects[key]
        end = len(data) if length is None else start + length
        for at in range(start, min(end, len(data)), READ_BLOCK):
            self.before_block(key, at)
            block = data[at : min(end, at + READ_BLOCK)]
            with self._lock:
                self.given += len(block)
            yield block

    def _stat(self, key: Key) -> Stat:
        return Stat(len(self.objects[key]), None)


def key_of(name: str) -> str:
    return f"packs/aa/{Digest.of(name.encode()).hex}.pack"


def pieces_of(name: str, data: bytes, *spans: tuple[int, int]) -> list[Piece]:
    return [Piece(key_of(name), at, n, Digest.of(data[at : at + n]), Means.CHUNKS) for at, n in spans]


def plan_for(pieces: Sequence[Piece]) -> Plan:
    return Plan(EMPTY, (), tuple(pieces), group_pieces(pieces))


DATA = some_bytes("pack", 2_000_000)
SPANS = ((0, 700_000), (700_000, 1), (700_001, 599_999), (1_300_100, 699_900))
PIECES = pieces_of("one", DATA, *SPANS)


def check_all(downloads: Downloads, pieces: Sequence[Piece] = PIECES, data: bytes = DATA) -> None:
    for piece in pieces:
        assert downloads.read(piece) == data[piece.offset : piece.offset + piece.length]


def test_what_is_fetched_can_be_read_by_this_object_and_the_next(tmp_path: Path) -> None:
    server = Server(one=DATA)
    downloads = Downloads(tmp_path / "new" / "folder")
    downloads.fetch(plan_for(PIECES), server)
    check_all(downloads)
    check_all(Downloads(tmp_path / "new" / "folder"))
    assert server.requests == [(key_of("one"), 0, 2_000_000)]


def test_nothing_is_fetched_twice(tmp_path: Path) -> None:
    server = Server(one=DATA)
    Downloads(tmp_path).fetch(plan_for(PIECES), server)
    again = Downloads(tmp_path)
    assert again.missing(plan_for(PIECES)) == 0
    again.fetch(plan_for(PIECES), server)
    assert server.given == len(DATA)


def test_another_plan_finds_what_the_first_one_got(tmp_path: Path) -> None:
    server = Server(one=DATA)
    Downloads(tmp_path).fetch(plan_for(PIECES), server)
    other = pieces_of("one", DATA, (5, 10), (1_999_999, 1))
    Downloads(tmp_path).fetch(plan_for(other), server)
    assert server.given == len(DATA)


@pytest.mark.parametrize("stopped_at", [1, 300_000, 699_999, 700_000, 700_001, 1_000_000, 1_300_050, 1_999_999])
def test_a_download_goes_on_at_the_byte_where_it_stopped(tmp_path: Path, stopped_at: int) -> None:
    Downloads(tmp_path).fetch(plan_for(PIECES), Server(one=DATA))
    (run,) = tmp_path.iterdir()
    with run.open("r+b") as file:
        file.truncate(stopped_at)
    server = Server(one=DATA)
    downloads = Downloads(tmp_path)
    left = len(DATA) - max(stopped_at, 1_300_100 if stopped_at > 1_300_000 else 0)
    assert downloads.missing(plan_for(PIECES)) == left
    downloads.fetch(plan_for(PIECES), server)
    assert server.given == left
    check_all(downloads)


def test_a_storage_that_stops_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    server = Server(one=DATA)

    def stop(_: str, at: int) -> None:
        if at > 1_000_000:
            raise OSError(104, "connection reset")

    server.before_block = stop
    with pytest.raises(Unavailable):
        Downloads(tmp_path).fetch(plan_for(PIECES), server)
    server.before_block = lambda _key, _at: None
    Downloads(tmp_path).fetch(plan_for(PIECES), server)
    assert server.given == len(DATA)


def test_a_cancelled_download_keeps_what_came(tmp_path: Path) -> None:
    server = Server(one=DATA)
    with pytest.raises(Cancelled):
        Downloads(tmp_path).fetch(plan_for(PIECES), server, cancelled=lambda: server.given >= 1_000_000)
    came = server.given
    assert came < len(DATA)
    Downloads(tmp_path).fetch(plan_for(PIECES), server)
    assert server.given == len(DATA)
    check_all(Downloads(tmp_path))


def test_bytes_that_are_wrong_once_are_fetched_afresh(tmp_path: Path) -> None:
    server = Server(one=DATA)
    spoiled = bytearray(DATA)
    spoiled[800_000] ^= 1
    server.objects[key_of("one")] = bytes(spoiled)

    def repair(_: str, at: int) -> None:
        if at > 1_000_000:
            server.objects[key_of("one")] = DATA

    server.before_block = repair
    downloads = Downloads(tmp_path)
    downloads.fetch(plan_for(PIECES), server)
    check_all(downloads)
    # The piece that was wrong, and what had not come before; not what was good.
    assert server.requests[1] == (key_of("one"), 700_001, 1_299_999)
    assert len(server.requests) == 2


def test_bytes_that_stay_wrong_are_untrusted_and_not_kept(tmp_path: Path) -> None:
    spoiled = bytearray(DATA)
    spoiled[800_000] ^= 1
    server = Server(one=bytes(spoiled))
    with pytest.raises(Untrusted, match="not what was signed"):
        Downloads(tmp_path).fetch(plan_for(PIECES), server)
    assert len(server.requests) == 2
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 700_001
    good = Server(one=DATA)
    Downloads(tmp_path).fetch(plan_for(PIECES), good)
    assert good.given == 1_299_999


def test_bytes_that_one_mirror_spoils_come_from_another(tmp_path: Path) -> None:
    bad, good = Server(one=bytes(len(DATA))), Server(one=DATA)
    bad.others = (bad, good)
    downloads = Downloads(tmp_path)
    downloads.fetch(plan_for(PIECES), bad)
    check_all(downloads)


def test_a_mirror_that_fails_after_another_spoiled_bytes_does_not_end_the_search(tmp_path: Path) -> None:
    bad, dead, good = Server(one=bytes(len(DATA))), Server(), Server(one=DATA)
    bad.others = (dead, good)
    downloads = Downloads(tmp_path)
    downloads.fetch(plan_for(PIECES), bad)
    check_all(downloads)


def test_what_was_damaged_on_the_disk_is_fetched_afresh(tmp_path: Path) -> None:
    Downloads(tmp_path).fetch(plan_for(PIECES), Server(one=DATA))
    (run,) = tmp_path.iterdir()
    for at in (5, 1_500_000):
        with run.open("r+b") as file:
            file.seek(at)
            file.write(b"!")
        server = Server(one=DATA)
        downloads = Downloads(tmp_path)
        downloads.fetch(plan_for(PIECES), server)
        check_all(downloads)
        assert server.given in (700_000, 699_900)


def test_damage_between_fetching_and_reading_is_noticed_and_heals(tmp_path: Path) -> None:
    downloads = Downloads(tmp_path)
    downloads.fetch(plan_for(PIECES), Server(one=DATA))
    (run,) = tmp_path.iterdir()
    run.write_bytes(DATA[:800_000] + b"!" + DATA[800_001:])
    with pytest.raises(InstallFailed, match="damaged on this disk"):
        downloads.read(PIECES[2])
    downloads.fetch(plan_for(PIECES), Server(one=DATA))
    check_all(downloads)


def test_a_partial_piece_that_was_damaged_is_fetched_afresh(tmp_path: Path) -> None:
    Downloads(tmp_path).fetch(plan_for(PIECES), Server(one=DATA))
    (run,) = tmp_path.iterdir()
    run.write_bytes(bytes(500_000))
    downloads = Downloads(tmp_path)
    downloads.fetch(plan_for(PIECES), Server(one=DATA))
    check_all(downloads)


def test_several_objects_and_far_pieces_are_fetched_at_once(tmp_path: Path) -> None:
    data = {f"pack{n}": some_bytes(n, 600_000) for n in range(4)}
    server = Server(**data)
    together = threading.Barrier(4, timeout=20)
    server.before_block = lambda _key, at: together.wait() and None if at == 0 else None  # type: ignore[func-returns-value]
    pieces = [p for name, d in data.items() for p in pieces_of(name, d, (0, 100), (100 + MAX_GAP + 1, 500_000))]
    downloads = Downloads(tmp_path)
    downloads.fetch(plan_for(pieces), server)
    assert len(server.requests) == 8
    for name, content in data.items():
        check_all(downloads, [p for p in pieces if p.key == key_of(name)], content)


def test_a_missing_object_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Downloads(tmp_path).fetch(plan_for(PIECES), Server())


def test_one_failure_stops_the_other_ranges_and_is_the_one_that_is_told(tmp_path: Path) -> None:
    data = some_bytes("long", 8 << 20)
    pieces = pieces_of("long", data, (0, 8 << 20)) + pieces_of("gone", data, (0, 10))
    server = Server(long=data)
    failed = threading.Event()
    server.before_block = lambda _key, at: failed.wait(0.01) and None if at else None  # type: ignore[func-returns-value]
    with pytest.raises(NotFound):
        Downloads(tmp_path).fetch(plan_for(pieces), server)
    assert server.given < len(data)


def test_progress_runs_to_its_end_and_starts_where_it_stopped(tmp_path: Path) -> None:
    seen: list[Progress] = []
    Downloads(tmp_path).fetch(plan_for(PIECES), Server(one=DATA), progress=seen.append)
    done = [progress.done for progress in seen]
    assert done == sorted(done)
    assert (done[0], done[-1], seen[-1].total) == (0, 2_000_000, 2_000_000)
    (run,) = tmp_path.iterdir()
    with run.open("r+b") as file:
        file.truncate(1_000_000)
    seen.clear()
    Downloads(tmp_path).fetch(plan_for(PIECES), Server(one=DATA), progress=seen.append)
    assert seen[0].done == 1_000_000


def test_an_error_in_the_progress_callback_stops_the_work_and_escapes(tmp_path: Path) -> None:
    def fail(progress: Progress) -> None:
        if progress.done:
            raise RuntimeError("window closed")

    with pytest.raises(RuntimeError, match="window closed"):
        Downloads(tmp_path).fetch(plan_for(PIECES), Server(one=DATA), progress=fail)


def test_a_piece_that_was_never_fetched_is_not_invented(tmp_path: Path) -> None:
    with pytest.raises(InstallFailed, match="was not downloaded"):
        Downloads(tmp_path).read(PIECES[0])


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InstallFailed, match=r"(Keeping|Reading) the downloads? failed"):
        Downloads(tmp_path / "file" / "folder").fetch(plan_for(PIECES), Server(one=DATA))


def test_cleared_downloads_are_gone(tmp_path: Path) -> None:
    downloads = Downloads(tmp_path / "d")
    downloads.fetch(plan_for(PIECES), Server(one=DATA))
    downloads.clear()
    assert not (tmp_path / "d").exists()
    assert downloads.missing(plan_for(PIECES)) == len(DATA)
    downloads.clear()


def test_foreign_files_in_the_folder_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / f"{Digest.of(b'x').hex}.pack-0-0.part").write_bytes(b"unknown")
    downloads = Downloads(tmp_path)
    downloads.fetch(plan_for(PIECES), Server(one=DATA))
    check_all(downloads)


def test_a_link_or_pipe_in_the_folder_is_not_taken_for_a_run(tmp_path: Path) -> None:
    folder, outside = tmp_path / "d", tmp_path / "outside"
    folder.mkdir()
    outside.write_bytes(b"not ours" * 20)
    name = key_of("one").rpartition("/")[2]
    (folder / f"{name}-0-0.part").symlink_to(outside)
    if os.name != "nt":
        os.mkfifo(folder / f"{name}-700000-0.part")
    downloads = Downloads(folder)
    downloads.fetch(plan_for(PIECES), Server(one=DATA))
    check_all(downloads)
    assert outside.read_bytes() == b"not ours" * 20
