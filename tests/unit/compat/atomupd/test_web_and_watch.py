"""The dynamic query, the list and the tree over ASGI, asked without a socket; and noticing that a pool has changed."""

import asyncio
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from instar.compat.atomupd.image import Image
from instar.compat.atomupd.pool import Pool, read_pool
from instar.compat.atomupd.settings import ServerSettings
from instar.compat.atomupd.watch import fingerprint, watch
from instar.compat.atomupd.web import make_atomupd_app
from instar.testing.clock import FakeClock
from tests.support.atomupd_pools import add_image, fields_of, make_pool, write_settings

LINES = ("3.6 20240104.1 stable", "3.7 20240115.1 stable", "3.8 20240116.1 beta")


def pool_of(tmp_path: Path, *lines: str) -> Pool:
    pool = make_pool(tmp_path / "pool", lines)
    consider = {"beta": "stable"}
    settings = write_settings(tmp_path / "server.conf", pool, branches="stable beta", consider=consider)
    return read_pool(ServerSettings.read(settings))


def ask(
    app: Any, path: str, query: str = "", method: str = "GET", headers: tuple[tuple[bytes, bytes], ...] = ()
) -> tuple[int, bytes, dict[str, str]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": list(headers),
    }
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], sent[1]["body"], {key.decode(): value.decode() for key, value in sent[0]["headers"]}


def query_of(line: str, **more: str) -> str:
    return urlencode({key: str(value) for key, value in fields_of(line)[0].items()} | more)


def builds(body: bytes) -> list[str]:
    return [one["image"]["buildid"] for one in json.loads(body)["minor"]["candidates"]] if body else []


QUERIES = [
    (query_of("3.6 20240104.1 stable"), ["20240115.1"]),
    (query_of("3.7 20240115.1 stable"), []),
    # An image that the pool does not have, of a branch that is further on, and another that it changes to.
    (query_of("3.5 20230101.1 beta"), ["20240116.1"]),
    (query_of("3.9 20240120.1 beta", default_update_branch="stable"), ["20240115.1"]),
    (query_of("3.6 20240104.1 stable", skip="True", introduces_checkpoint="0"), ["20240115.1"]),
    (query_of("3.6 20240104.1 stable", unknown="x"), ["20240115.1"]),
    (query_of("3.6 20240104.1 stable vanilla"), []),
]


@pytest.mark.parametrize(("query", "offered"), QUERIES)
def test_the_dynamic_query(query: str, offered: list[str], tmp_path: Path) -> None:
    pool = pool_of(tmp_path, *LINES)
    app = make_atomupd_app(lambda: pool)
    for _ in range(2):  # the second answer is one that was kept
        status, body, headers = ask(app, "/", query)
        assert (status, builds(body)) == (200, offered)
        assert headers["content-length"] == str(len(body))


MALFORMED = ["", "x=1", query_of(LINES[0], buildid="x"), query_of(LINES[0], version=""), "a" * 5000, "product=%ff"]


@pytest.mark.parametrize("query", [*MALFORMED, "&".join("a=b" for _ in range(100))])
def test_a_malformed_request(query: str, tmp_path: Path) -> None:
    pool = pool_of(tmp_path, *LINES)
    assert ask(make_atomupd_app(lambda: pool), "/", query)[:2] == (400, b"Malformed request")


def test_queries_for_what_the_pool_does_not_have_leave_nothing_in_memory(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, *LINES)
    image, _ = Image.parse(fields_of(LINES[0])[0])
    pool.ladders(image, "stable")

    def kept() -> int:
        return len(pool._ladders) + len(pool._offered)

    before = kept()
    for number in range(10):
        assert not pool.ladders(replace(image, product=f"other{number}"), "stable")[0].rungs
        assert not pool.ladders(image, f"none{number}")[0].rungs
    assert kept() == before


def test_answers_to_long_queries_are_not_kept(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, *LINES)
    app = make_atomupd_app(lambda: pool)
    ask(app, "/", query_of(LINES[0]))
    tracemalloc.start()
    for number in range(200):
        assert ask(app, "/", query_of(LINES[0], **{"fact.x": f"{number}{'y' * 3500}"}))[0] == 200
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 200 * 3500 / 2


def test_facts_withhold_an_image_and_another_takes_its_place(tmp_path: Path) -> None:
    manifest = add_image(tmp_path / "pool", "3.7.5 20240116.2 stable")
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"conditions": {"gpu": ["new"]}}))
    pool = pool_of(tmp_path, *LINES)
    app = make_atomupd_app(lambda: pool)
    asked = [query_of(LINES[0], **facts) for facts in ({}, {"fact.gpu": "old"}, {"fact.gpu": "new"})]
    assert [builds(ask(app, "/", query)[1]) for query in asked] == [["20240115.1"], ["20240115.1"], ["20240116.2"]]


def test_a_pool_that_changed_changes_the_answers(tmp_path: Path) -> None:
    current = [pool_of(tmp_path, *LINES)]
    app = make_atomupd_app(lambda: current[0])
    assert builds(ask(app, "/", query_of(LINES[0]))[1]) == ["20240115.1"]
    current[0] = pool_of(tmp_path, "3.7.5 20240116.2 stable")
    assert builds(ask(app, "/", query_of(LINES[0]))[1]) == ["20240116.2"]


def test_the_list(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, *LINES, "3.9 20240117.1 beta skip deleted")
    app = make_atomupd_app(lambda: pool)
    listed = json.loads(ask(app, "/list")[1])["images"]
    assert len(listed) == 4
    only = json.loads(ask(app, "/list", "branch=beta&version=3.9.0")[1])["images"]
    assert [(row["buildid"], row["skip"], row["update_path"]) for row in only] == [("20240117.1", True, "")]
    assert ask(app, "/list", "colour=red")[0] == 400


def test_the_static_tree(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, *LINES)
    tree = tmp_path / "tree"
    for name in ("a/b%2B.json", "a/remote-info.conf", "a/.hidden.json", "a/other.txt"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("{}")
    (tmp_path / "outside.json").write_text("secret")
    app = make_atomupd_app(lambda: pool, tree=tree)
    status, body, headers = ask(app, "/a/b%2B.json")
    assert (status, body, headers["content-type"]) == (200, b"{}", "application/json")
    known = ((b"if-none-match", headers["etag"].encode()),)
    status, body, headers = ask(app, "/a/b%2B.json", headers=known)
    # No length: it would be taken for the file's (RFC 9110, 8.6).
    assert (status, body, "content-length" in headers, "etag" in headers) == (304, b"", False, True)
    assert ask(app, "/a/remote-info.conf", method="HEAD")[:2] == (200, b"")
    for path in ("/a/.hidden.json", "/a/other.txt", "/none.json", "/../outside.json", "/a//b.json", "/a/..\\x.json"):
        assert ask(app, path)[0] == 404, path
    assert ask(app, "/a/b%2B.json", method="POST")[0] == 405
    assert ask(make_atomupd_app(lambda: pool), "/a/b%2B.json")[0] == 404


def test_a_pool_looks_different_when_an_image_comes_changes_or_goes(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", LINES)
    seen = [fingerprint(pool)]
    manifest = add_image(pool, "3.9 20240120.1 stable")
    seen.append(fingerprint(pool))
    manifest.write_text(manifest.read_text() + " ")
    seen.append(fingerprint(pool))
    Path(str(manifest).replace(".manifest.json", ".castr")).rmdir()
    seen.append(fingerprint(pool))
    manifest.unlink()
    seen.append(fingerprint(pool))
    seen.append(fingerprint(pool, besides=manifest))
    assert len(set(seen)) == len(seen)
    # What is in a chunk store, or hidden, is not looked at.
    before = fingerprint(pool)
    store = next(pool.rglob("*.castr"))
    (store / "0000").mkdir()
    (pool / ".ci").mkdir()
    assert fingerprint(pool) == before


def test_it_acts_at_once_and_then_when_a_change_stands_still() -> None:
    looks = iter("aabccddee")
    seen: list[str] = []
    acted: list[int] = []
    clock = FakeClock()

    def look() -> bytes:
        seen.append(next(looks))
        return seen[-1].encode()

    def act() -> bool:
        acted.append(len(seen))
        return True

    watch(look, act, clock=clock, interval=5, stop=lambda: len(seen) == 9)
    assert acted == [1, 5, 7, 9]


@pytest.mark.parametrize(
    ("succeeds", "every", "expected"),
    [("yyyy", None, [1]), ("ynny", None, [1]), ("nnyy", None, [1, 3, 4]), ("yyyy", 15, [1, 5, 8])],
)
def test_it_acts_again_without_a_change_after_a_failure_and_when_it_is_time(
    succeeds: str, every: float | None, expected: list[int]
) -> None:
    looks: list[bytes] = []
    acted: list[int] = []

    def look() -> bytes:
        looks.append(b"same")
        return looks[-1]

    def act() -> bool:
        acted.append(len(looks))
        return succeeds[len(acted) - 1] == "y"

    watch(look, act, clock=FakeClock(), interval=5, every=every, stop=lambda: len(looks) == 8)
    assert acted == expected
