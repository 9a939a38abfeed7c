"""The dynamic query, the list and the static tree over HTTP, as an ASGI application.

It speaks ASGI itself: a query is answered from memory in some microseconds, of which a framework would take most.
Nothing that a request says reaches a file's name unchecked, and nothing is written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from instar.compat.atomupd.answers import find_update, write_answer_line
from instar.compat.atomupd.image import Image
from instar.compat.atomupd.paths import REMOTE_INFO
from instar.compat.atomupd.pool import Pool
from instar.policy.ladder import Aim
from instar.system.files import read_bounded

__all__ = ["make_atomupd_app"]

_MAX_QUERY: Final = 4096
"""Bytes of a query. The fields of an image have some three hundred; facts may be added."""
_MAX_FIELDS: Final = 64
_MAX_FILE: Final = 1 << 20  # bytes of a file of the tree
_KEPT: Final = 32_768
"""Answers kept by their query: devices with the same image ask the same. Some tens of megabytes when it is full, since
different images share their answers; bounded, since strangers choose the queries."""
_KEPT_LENGTH: Final = 1024
"""Bytes of the longest query whose answer is kept: devices have shorter ones, and strangers could fill the memory."""
_FACT: Final = "fact."
_LISTED_BY: Final = ("product", "release", "variant", "branch", "arch", "version", "buildid")

_Answer = tuple[int, bytes, bytes]  # status, type, body
_MALFORMED: Final[_Answer] = (400, b"text/plain", b"Malformed request")
_NOTHING: Final[_Answer] = (404, b"text/plain", b"There is no such file.\n")


def make_atomupd_app(current: Callable[[], Pool], *, tree: Path | None = None) -> ASGIApp:
    """Make the application.

    Args:
        current: gives the pool as it is now; it is asked for each request, so it must be quick.
        tree: the folder of the static tree; None: there is none to serve.

    """
    answers = _Answers()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            return
        method: str = scope["method"]
        path: str = scope["path"]
        query: bytes = scope["query_string"]
        headers: list[tuple[bytes, bytes]] = [(b"cache-control", b"no-cache")]
        if method not in {"GET", "HEAD"}:
            status, kind, body = 405, b"text/plain", b"Only GET and HEAD are understood.\n"
        elif path == "/":
            status, kind, body = answers.give(current(), query)
        elif path == "/list":
            status, kind, body = await run_in_threadpool(_list, current(), query)
        else:
            raw: bytes = scope.get("raw_path") or path.encode()
            status, kind, body = await run_in_threadpool(_read, tree, raw.partition(b"?")[0]) if tree else _NOTHING
            tag = b'"' + hashlib.sha256(body).hexdigest().encode() + b'"'
            headers.append((b"etag", tag))
            if status == 200 and (b"if-none-match", tag) in scope["headers"]:  # noqa: PLR2004  # HTTP's number
                status, body = 304, b""
        if status != 304:  # noqa: PLR2004  # HTTP's number
            headers += [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})

    return app


class _Answers:
    """Answers from memory, as long as the pool stays the same."""

    def __init__(self) -> None:
        self._pool: Pool | None = None
        self._kept: dict[bytes, _Answer] = {}
        self._shared: dict[_Answer, _Answer] = {}

    def give(self, pool: Pool, query: bytes) -> _Answer:
        if self._pool is not pool:
            self._forget()
            self._pool = pool
        if (found := self._kept.get(query)) is None:
            found = _answer_query(pool, query)
            if len(query) > _KEPT_LENGTH:
                return found
            if len(self._kept) >= _KEPT:
                self._forget()
            self._kept[query] = found = self._shared.setdefault(found, found)
        return found

    def _forget(self) -> None:
        self._kept.clear()
        self._shared.clear()


def _answer_query(pool: Pool, query: bytes) -> _Answer:
    try:
        fields, facts = _split(_parse(query))
        image, _ = Image.parse(fields)
    except ValueError:
        return _MALFORMED
    # A device that does not say what it is made of is offered only what suits every device.
    answer = find_update(pool, image, image.default_update_branch, Aim.NEWER, facts=facts)
    return (200, b"application/json", write_answer_line(answer)) if answer.way else (200, b"text/plain", b"")


def _parse(query: bytes) -> dict[str, str]:
    if len(query) > _MAX_QUERY:
        msg = "the query is too long"
        raise ValueError(msg)
    text = query.decode("ascii")
    return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict"))


def _split(fields: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    facts = {key.removeprefix(_FACT): value for key, value in fields.items() if key.startswith(_FACT)}
    # Conditions are the publisher's to set.
    return {key: value for key, value in fields.items() if not key.startswith(_FACT) and key != "conditions"}, facts


def _list(pool: Pool, query: bytes) -> _Answer:
    try:
        wanted = _parse(query)
    except ValueError:
        return _MALFORMED
    if not wanted.keys() <= set(_LISTED_BY):
        return _MALFORMED
    rows: list[dict[str, Any]] = []
    for one in pool.images:
        row = list_row(one.image, one.bundle)
        if all(row[key] == value for key, value in wanted.items()):
            rows.append(row)
    return 200, b"application/json", json.dumps({"images": rows}, sort_keys=True).encode()


def list_row(image: Image, bundle: str) -> dict[str, Any]:
    """Say of an image what a list says: all that its manifest does, and where its bundle is."""
    return {
        **image.export(),
        "branch": image.branch,
        "introduces_checkpoint": image.introduces_checkpoint,
        "requires_checkpoint": image.requires_checkpoint,
        "shadow_checkpoint": image.shadow_checkpoint,
        "skip": image.skip,
        "update_path": bundle,
    }


def _read(tree: Path, raw: bytes) -> _Answer:
    """Read a file of the tree. Its name is the path as it was sent: names in the tree are quoted themselves."""
    parts = raw.decode("latin-1").removeprefix("/").split("/")
    name = parts[-1]
    if not (name.endswith(".json") or name == REMOTE_INFO) or any(
        not part.isascii() or not part.isprintable() or part.startswith(".") or not part or "\\" in part
        for part in parts
    ):
        return _NOTHING
    try:
        body = read_bounded(tree.joinpath(*parts), _MAX_FILE)
    except (OSError, ValueError):
        return _NOTHING
    return 200, b"application/json" if name.endswith(".json") else b"text/plain", body


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return
