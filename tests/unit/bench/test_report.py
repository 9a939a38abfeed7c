from typing import Any

from bench.report import Pair, Promise, promises, to_markdown

_VERSION = {"size": 280_000_000, "files": 900, "largest_file": 20_000_000}
_INPUTS = {"title": "Qt app", "versions": [_VERSION, _VERSION]}


def step(seconds: float, megabytes: float, **more: Any) -> dict[str, Any]:
    return {"seconds": seconds, "cpu_seconds": seconds / 2, "peak_memory": int(megabytes * 1e6), **more}


OURS = {
    "publish": step(50, 400),
    "update": step(2, 100, bytes=20_000_000, requests=8),
    "install": step(5, 100, bytes=70_000_000, requests=30),
    "check_nothing_new": step(0.4, 50, bytes=900, requests=2),
}
PEER = {
    "publish": step(1000, 4800),
    "update": step(30, 1000, bytes=27_000_000, requests=6),
    "install": step(5, 60, bytes=97_000_000, requests=5),
}


def test_a_promise_is_kept_on_its_bound() -> None:
    assert Promise("faster", 15.0, 15, at_least=True).kept
    assert not Promise("faster", 14.9, 15, at_least=True).kept
    assert Promise("bytes", 0.8, 0.8).kept
    assert not Promise("bytes", 0.81, 0.8).kept


def test_figures_that_miss_a_promise_are_found() -> None:
    assert [p.what for p in promises([Pair("qt", _INPUTS, OURS, PEER)], {}) if not p.kept] == []
    slow = OURS | {"publish": step(100, 400)}
    missed = [p for p in promises([Pair("qt", _INPUTS, slow, PEER)], {}) if not p.kept]
    assert [p.what for p in missed] == ["qt: publish a patch release: times faster"]
    assert missed[0].value == 10


def test_a_kept_run_of_the_peer_counts_with_its_processor_time() -> None:
    now, kept = (Pair("qt", _INPUTS, OURS, PEER, kept_from=origin) for origin in (None, "2026-11-21, 2 cores"))
    assert [p.peer_seconds("publish") for p in (now, kept)] == [1000, 500]


def test_the_page_marks_what_is_a_lower_bound_and_where_kept_figures_are_from() -> None:
    gave_up = PEER | {"publish": step(1800, 2100, gave_up_after=1800.0)}
    pair = Pair("scientific", _INPUTS, OURS, gave_up, kept_from="2026-11-21, 2 cores")
    machine = {"cores": 2, "memory": 24 << 30, "processor": "Some", "system": "Linux", "python": "3.11.7"}
    page = to_markdown([pair], {}, date="2026-11-21", machine=machine)
    assert "kept run (2026-11-21, 2 cores)" in page
    assert "stopped after 1,800 s" in page
    assert "| publish the next | time | 50.0 s | >900 s | <0.0556 |" in page
