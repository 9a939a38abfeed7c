"""Reading from a web server that misbehaves: what is asked, repeated, resumed, and when it is given up."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from datetime import timedelta

import pytest

from instar.errors import InstarError, Misconfigured, NotFound, Unavailable, Untrusted
from instar.storage import HttpOptions, HttpReader, MemoryStorage
from instar.system.clock import SystemClock
from instar.testing.clock import FakeClock
from instar.testing.http import (
    CloseEarly,
    Endless,
    EndlessHead,
    Fault,
    FaultyServer,
    Hang,
    IgnoreRange,
    RefuseRange,
    Shorten,
    Status,
    Trickle,
    WrongBytes,
    WrongRange,
    refused_port,
)

KEY = f"packs/ab/{'ab' * 32}.pack"
TIMESTAMP = "metadata/timestamp.json"
DATA = random.Random(3).randbytes(1_000_000)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def storage() -> MemoryStorage:
    storage = MemoryStorage()
    storage.write(KEY, DATA)
    storage.write(TIMESTAMP, b"{}")
    return storage


@pytest.fixture
def server(storage: MemoryStorage) -> Iterator[FaultyServer]:
    with FaultyServer(storage) as server:
        yield server


@pytest.fixture
def reader(server: FaultyServer, clock: FakeClock) -> Iterator[HttpReader]:
    with HttpReader(server.url, clock=clock) as reader:
        yield reader


@pytest.fixture
def hasty_reader(server: FaultyServer, clock: FakeClock) -> Iterator[HttpReader]:
    """Give a reader that waits for silent servers for less time than a test may take."""
    with HttpReader(server.url, HttpOptions(silence_timeout=0.3), clock=clock) as reader:
        yield reader


def part(reader: HttpReader, start: int = 0, length: int | None = None, key: str = KEY) -> bytes:
    with reader.stream(key, start=start, length=length) as blocks:
        return b"".join(blocks)


def ranges(server: FaultyServer) -> list[str | None]:
    return [request.range for request in server.received]


# What is asked


def test_only_the_wanted_bytes_are_asked_for(server: FaultyServer, reader: HttpReader) -> None:
    part(reader, 600_000, 400_000)
    part(reader, 600_000)
    part(reader)
    assert ranges(server) == ["bytes=600000-999999", "bytes=600000-", None]


def test_a_plus_is_not_left_to_be_taken_for_a_space(
    storage: MemoryStorage, server: FaultyServer, reader: HttpReader
) -> None:
    key = f"targets/app/{'ab' * 32}.linux-1.0+build.5.manifest"
    storage.write(key, b"manifest")
    assert reader.read(key, limit=10) == b"manifest"
    assert reader.stat(key).size == 8


def test_nobody_is_asked_for_nothing(server: FaultyServer, reader: HttpReader) -> None:
    assert part(reader, 5, 0) == b""
    assert server.received == []


def test_compression_on_the_way_is_declined(server: FaultyServer, reader: HttpReader) -> None:
    part(reader, 0, 10)
    assert server.received[0].headers["accept-encoding"] == "identity"


def test_what_claims_to_be_compressed_is_not_unpacked(server: FaultyServer, reader: HttpReader) -> None:
    server.fault(Status(200, (("Content-Encoding", "gzip"),)))
    assert reader.read(KEY, limit=100) == b"as it was told"


def test_caches_are_told_to_ask_for_what_may_have_changed(server: FaultyServer, reader: HttpReader) -> None:
    reader.read(TIMESTAMP, limit=10)
    part(reader, 0, 10)
    assert [request.headers.get("cache-control") for request in server.received] == ["no-cache", None]


def test_one_connection_serves_many_requests(server: FaultyServer, reader: HttpReader, storage: MemoryStorage) -> None:
    storage.write("metadata/1.empty.json", b"")
    for _ in range(5):
        part(reader, 10, 10)
        reader.stat(KEY)
        reader.read(TIMESTAMP, limit=10)
        reader.read("metadata/1.empty.json", limit=10)
        with pytest.raises(NotFound):
            reader.read("metadata/2.root.json", limit=10)
    assert server.connections == 1


# Resuming


@pytest.mark.parametrize("cut", [0, 1, 123_456, 599_999])
def test_a_download_that_was_cut_goes_on_where_it_stopped(server: FaultyServer, reader: HttpReader, cut: int) -> None:
    server.fault(CloseEarly(cut))
    assert part(reader, 400_000, 600_000) == DATA[400_000:]
    assert ranges(server) == ["bytes=400000-999999", f"bytes={400_000 + cut}-999999"]


def test_a_body_in_chunks_that_was_cut_goes_on_where_it_stopped(server: FaultyServer, reader: HttpReader) -> None:
    server.fault(CloseEarly(300_000, chunked=True))
    assert part(reader, 0, 1_000_000) == DATA
    assert ranges(server)[1] == "bytes=300000-999999"


def test_a_whole_object_that_was_cut_goes_on_where_it_stopped(server: FaultyServer, reader: HttpReader) -> None:
    server.fault(CloseEarly(600_000))
    assert reader.read(KEY, limit=1_000_000) == DATA
    assert ranges(server) == [None, "bytes=600000-"]


@pytest.mark.parametrize("fault", [IgnoreRange(), IgnoreRange(with_length=False), RefuseRange(), WrongRange()])
def test_a_server_that_cannot_do_ranges_is_read_from_the_start_and_only_the_part_is_given(
    server: FaultyServer, reader: HttpReader, clock: FakeClock, fault: Fault
) -> None:
    server.fault(fault, times=None)
    assert part(reader, 600_000, 1000) == DATA[600_000:601_000]
    assert part(reader, 999_999, 1) == DATA[-1:]
    assert clock.slept == []


@pytest.mark.parametrize("fault", [IgnoreRange(), IgnoreRange(with_length=False), RefuseRange(), WrongRange()])
def test_a_cut_download_is_resumed_from_a_server_that_cannot_do_ranges(
    server: FaultyServer, reader: HttpReader, fault: Fault
) -> None:
    server.fault(CloseEarly(600_000))
    server.fault(fault, times=None)
    assert part(reader, 0, 1_000_000) == DATA


def test_a_server_that_gives_less_than_asked_is_asked_for_the_rest(server: FaultyServer, reader: HttpReader) -> None:
    server.fault(Shorten(100_000), times=None)
    assert part(reader, 500_000, 500_000) == DATA[500_000:]
    assert len(server.received) == 5


def test_a_connection_that_breaks_again_and_again_still_brings_a_large_object_home(
    server: FaultyServer, reader: HttpReader
) -> None:
    server.fault(CloseEarly(90_000), times=None)
    assert part(reader, 0, 1_000_000) == DATA
    assert len(server.received) == 12


def test_a_connection_that_brings_nothing_is_given_up(
    server: FaultyServer, reader: HttpReader, clock: FakeClock
) -> None:
    server.fault(CloseEarly(100), times=None)
    with pytest.raises(Unavailable, match="try again later"):
        part(reader, 0, 1_000_000)
    assert ranges(server) == [f"bytes={n}-999999" for n in (0, 100, 200, 300)]
    assert clock.slept == pytest.approx([0.2, 0.4, 0.8])


def test_what_came_before_the_end_is_good(server: FaultyServer, reader: HttpReader) -> None:
    server.fault(CloseEarly(150_000), times=1)
    server.fault(Status(503), times=None)
    got: list[bytes] = []
    with reader.stream(KEY) as blocks, pytest.raises(Unavailable):
        got.extend(blocks)
    assert b"".join(got) == DATA[:150_000]


def test_other_bytes_are_given_as_they_are_for_the_digest_to_judge(server: FaultyServer, reader: HttpReader) -> None:
    server.fault(WrongBytes(5))
    got = part(reader, 0, 10)
    assert got != DATA[:10]
    assert len(got) == 10


def test_what_changed_in_the_middle_is_not_pieced_together(server: FaultyServer, hasty_reader: HttpReader) -> None:
    server.fault(Status(200, (("ETag", '"one"'), ("Content-Length", "99"))))
    server.fault(Status(200, (("ETag", '"two"'), ("Content-Length", "99"))))
    with pytest.raises(Unavailable, match="was replaced while"):
        hasty_reader.read(TIMESTAMP, limit=1000)


# Attacks by time and by length


def test_a_trickling_body_is_stopped_by_the_least_speed(server: FaultyServer) -> None:
    server.fault(Trickle(count=1, pause=0.001), times=None)
    clock = FakeClock(step=0.1)
    options = HttpOptions(least_speed=1024, speed_window=5, deadline=1e9)
    with HttpReader(server.url, options, clock=clock) as reader:
        with pytest.raises(Unavailable, match=r"too slow.*bytes a second"):
            part(reader)
        assert 4 <= len(server.received) <= 5
        assert reader.traffic.received < 10_000


@pytest.mark.parametrize("fault", [Trickle(pause=0.001), Trickle(pause=0.001, head=True), EndlessHead(interim=True)])
def test_a_whole_small_object_has_a_deadline_whatever_the_server_does(server: FaultyServer, fault: Fault) -> None:
    server.fault(fault, times=None)
    clock = FakeClock(step=0.5)
    options = HttpOptions(least_speed=0, deadline=20)
    with HttpReader(server.url, options, clock=clock) as reader:
        with pytest.raises(Unavailable, match="longer than the 20 seconds"):
            reader.read(KEY, limit=1_000_000)
        assert len(server.received) == 1
    assert timedelta(seconds=clock.monotonic()) < timedelta(seconds=30)


def test_a_stream_may_take_the_time_of_its_length_at_the_least_speed_and_no_more(server: FaultyServer) -> None:
    server.fault(Trickle(count=10, pause=0.001), times=None)
    clock = FakeClock(step=1.0)
    options = HttpOptions(least_speed=100, deadline=10, speed_window=1e9)
    with HttpReader(server.url, options, clock=clock) as reader:
        assert len(part(reader, 0, 10)) == 10
        with pytest.raises(Unavailable, match="longer than the 110 seconds"):
            part(reader, 0, 10_000)


def test_the_time_that_the_caller_takes_is_not_the_servers_fault(server: FaultyServer, clock: FakeClock) -> None:
    options = HttpOptions(deadline=10, least_speed=1_000_000)
    with HttpReader(server.url, options, clock=clock) as reader, reader.stream(KEY) as blocks:
        for _ in blocks:
            clock.advance(timedelta(hours=1))
    assert len(server.received) == 1


def test_a_server_that_says_nothing_is_given_up(server: FaultyServer, hasty_reader: HttpReader) -> None:
    server.fault(Hang(), times=None)
    with pytest.raises(Unavailable, match="sent nothing"):
        hasty_reader.read(TIMESTAMP, limit=10)
    assert len(server.received) == 4


@pytest.mark.parametrize("fault", [Hang(), Hang(after=10), Trickle(pause=0.05)])
def test_the_deadline_holds_in_real_time_while_nothing_comes(server: FaultyServer, fault: Fault) -> None:
    server.fault(fault, times=None)
    clock = SystemClock()
    began = clock.monotonic()
    with HttpReader(server.url, HttpOptions(deadline=0.4)) as reader:
        with pytest.raises(Unavailable):
            reader.read(KEY, limit=1_000_000)
        assert len(server.received) == 1
    assert clock.monotonic() - began < 10  # half of the time that silence alone may last


def test_a_server_that_falls_silent_in_the_middle_is_asked_again(
    server: FaultyServer, hasty_reader: HttpReader
) -> None:
    server.fault(Hang(after=500_000))
    assert part(hasty_reader) == DATA
    assert ranges(server)[:2] == [None, "bytes=500000-"]


def test_endless_data_is_cut_at_the_limit(server: FaultyServer, reader: HttpReader) -> None:
    server.fault(Endless(), times=None)
    with pytest.raises(Untrusted, match="longer than the 1000 bytes"):
        reader.read(TIMESTAMP, limit=1000)
    assert len(part(reader, 10, 1000)) == 1000
    assert reader.traffic.received < 2_000_000


@pytest.mark.parametrize("interim", [True, False])
def test_endless_headers_are_cut(server: FaultyServer, reader: HttpReader, interim: bool) -> None:
    server.fault(EndlessHead(interim=interim), times=None)
    with pytest.raises(Unavailable):
        reader.read(TIMESTAMP, limit=10)
    assert reader.traffic.received < 4 * 300 * 1024


# What an answer means


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_is_not_there_is_asked_for_once(server: FaultyServer, reader: HttpReader, status: int) -> None:
    server.fault(Status(status), times=None)
    for ask in (lambda: reader.read(KEY, limit=10), lambda: part(reader, 5, 5), lambda: reader.stat(KEY)):
        with pytest.raises(NotFound):
            ask()
    assert len(server.received) == 3


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again(server: FaultyServer, reader: HttpReader, status: int) -> None:
    server.fault(Status(status), times=3)
    assert part(reader, 0, 10) == DATA[:10]
    server.fault(Status(status), times=3)
    assert reader.stat(KEY).size == len(DATA)
    assert len(server.received) == 8


@pytest.mark.parametrize("status", [400, 405, 418, 451, 501, 204, 304])
def test_another_answer_is_not_tried_again(server: FaultyServer, reader: HttpReader, status: int) -> None:
    server.fault(Status(status), times=None)
    with pytest.raises(Unavailable, match=str(status)) as caught:
        reader.read(KEY, limit=10)
    assert not isinstance(caught.value, NotFound)
    assert len(server.received) == 1


@pytest.mark.parametrize(("status", "who"), [(401, "server"), (407, "proxy")])
def test_whoever_asks_for_a_password_needs_a_person(
    server: FaultyServer, reader: HttpReader, status: int, who: str
) -> None:
    server.fault(Status(status), times=None)
    with pytest.raises(Misconfigured, match=f"The {who}.*authorization"):
        reader.read(KEY, limit=10)


@pytest.mark.parametrize(("asked", "waited"), [("3", 3.0), ("86400", 10.0), ("tomorrow", 0.2), ("-5", 0.2)])
def test_a_busy_server_says_how_long_to_wait_within_reason(
    server: FaultyServer, reader: HttpReader, clock: FakeClock, asked: str, waited: float
) -> None:
    server.fault(Status(503, (("Retry-After", asked),)))
    reader.read(TIMESTAMP, limit=10)
    assert clock.slept == [waited]


def test_nobody_waits_longer_than_the_deadline(server: FaultyServer, clock: FakeClock) -> None:
    server.fault(Status(503, (("Retry-After", "9"),)), times=None)
    with HttpReader(server.url, HttpOptions(deadline=5), clock=clock) as reader, pytest.raises(Unavailable):
        reader.read(TIMESTAMP, limit=10)
    assert clock.slept == []


def test_a_server_that_is_not_there_cannot_be_reached(clock: FakeClock) -> None:
    with refused_port() as url, HttpReader(url, clock=clock) as reader:
        for ask in (lambda: reader.read(TIMESTAMP, limit=10), lambda: part(reader), lambda: reader.stat(KEY)):
            with pytest.raises(Unavailable, match=r"cannot be reached\. Check the connection"):
                ask()


def test_a_name_that_does_not_exist_cannot_be_reached(clock: FakeClock) -> None:
    with HttpReader("https://no-such-host.invalid", clock=clock) as reader, pytest.raises(Unavailable):
        reader.read(TIMESTAMP, limit=10)


def test_a_server_that_does_not_tell_a_size_cannot_be_asked_for_it(server: FaultyServer, reader: HttpReader) -> None:
    server.fault(IgnoreRange(with_length=False))
    with pytest.raises(Unavailable, match="how long"):
        reader.stat(KEY)


# Traffic


def test_traffic_is_counted(server: FaultyServer, reader: HttpReader) -> None:
    part(reader, 0, 1000)
    one = reader.traffic
    assert (one.requests, one.content) == (1, 1000)
    assert 1000 < one.received < 1500
    server.fault(CloseEarly(400))
    part(reader, 0, 1000)
    two = reader.traffic - one
    assert (two.requests, two.content) == (2, 1000)


# Addresses


@pytest.mark.parametrize(
    "url",
    ["", "ftp://x/y", "https://", "https://host/?a=b", "https://host/#x", "https://[::1", "https://h:99999/", "//host"],
)
def test_what_is_not_an_address_is_refused(url: str) -> None:
    with pytest.raises(Misconfigured, match="not the address"):
        HttpReader(url)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(Misconfigured, match="authorization option") as caught:
        HttpReader("https://user:hunter2@host/")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://example.com", "http://192.0.2.1/", "http://localhost.example.com/"])
def test_plain_http_to_another_machine_needs_an_option_that_says_insecure(url: str) -> None:
    with pytest.raises(Misconfigured, match="insecure_http"):
        HttpReader(url)
    HttpReader(url, HttpOptions(insecure_http=True)).close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://127.9.9.9/", "http://localhost/x", "http://[::1]:8000"])
def test_plain_http_to_this_machine_is_fine(url: str) -> None:
    HttpReader(url).close()


@pytest.mark.parametrize(("name", "value"), [("X", "a\r\nEvil: 1"), ("X\n", "a"), ("X Y", "a"), ("X", "ä")])
def test_a_header_that_would_become_two_is_refused(name: str, value: str) -> None:
    with pytest.raises(Misconfigured, match="header"):
        HttpOptions(headers={name: value})


@pytest.mark.parametrize("name", ["Range", "range", "Host", "Accept-Encoding"])
def test_a_header_that_the_reader_sets_is_refused(name: str) -> None:
    with pytest.raises(Misconfigured, match="cannot be chosen"):
        HttpOptions(headers={name: "x"})


def test_secrets_do_not_show_in_the_options() -> None:
    options = HttpOptions(authorization="Bearer s3cret", headers={"X-Key": "s3cret"}, proxy="http://u:s3cret@proxy")
    assert "s3cret" not in repr(options)


def test_every_failure_is_of_our_families(server: FaultyServer, reader: HttpReader) -> None:
    faults = [Status(999), Status(200, (("Content-Length", "x"),)), Status(206, (("Content-Range", "bytes x"),))]
    for fault in faults:
        server.fault(fault, times=None)
        with contextlib.suppress(InstarError):
            part(reader, 0, 10)
        server.heal()
