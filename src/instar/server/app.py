"""The ASGI application: one route, from a URL's path to an object of the storage."""

from __future__ import annotations

import contextlib
import hashlib
import re
from typing import Final
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from instar.errors import InstarError, NotFound, Untrusted
from instar.server.ranges import Part, Unsatisfiable, select_part
from instar.storage import Key, Reader, Stat, is_immutable

__all__ = ["make_app"]

# Everything else in the folder (configuration, locks, work in progress) is nobody's business.
_SERVED: Final = frozenset({"metadata", "targets", "packs"})
# What may change is read whole before it is sent, so that length, tag and content belong together. Only the
# timestamp does change, and it has some hundred bytes.
_MAX_MUTABLE: Final = 16 * 1024 * 1024
# What a key may hold without an escape; other characters keep theirs, because they are part of the key.
_PLAIN: Final = re.compile(rb"%(2[BbCcDdEe]|21|3[0-9]|3[Dd]|4[0-9A-Fa-f]|5[0-9AaFf]|6[1-9A-Fa-f]|7[0-9AaEe])")
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_ASK_AGAIN: Final = "no-cache"


def make_app(storage: Reader) -> ASGIApp:
    """Make the application that serves the objects of ``storage`` below ``metadata/``, ``targets/`` and ``packs/``.

    It answers GET and HEAD, with ranges, tags and cache headers; there is no listing of anything.
    """

    async def answer(request: Request) -> Response:
        try:
            key = _parse_key(request.scope)
            return await _answer(storage, key, request)
        except (ValueError, NotFound, Untrusted):
            return _plain(404, "There is no such object.")
        except InstarError:
            # The reason is about this machine, and not for strangers.
            return _plain(503, "The object cannot be read now.")

    return Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "HEAD"])])


def _parse_key(scope: Scope) -> Key:
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    path = _PLAIN.sub(lambda match: bytes([int(match[1], 16)]), raw.partition(b"?")[0])
    key = Key(path.decode("ascii").removeprefix("/"))
    if key.partition("/")[0] not in _SERVED:
        msg = f"{key} is not served"
        raise ValueError(msg)
    return key


async def _answer(storage: Reader, key: Key, request: Request) -> Response:
    data: bytes | None = None
    if is_immutable(key):
        found = await run_in_threadpool(storage.stat, key)
    else:
        data = await run_in_threadpool(storage.read, key, limit=_MAX_MUTABLE)
        found = Stat(len(data), hashlib.sha256(data).hexdigest())
    tag = f'"{found.etag}"'
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": _FOR_EVER if is_immutable(key) else _ASK_AGAIN,
        "Content-Type": "application/json" if key.endswith(".json") else "application/octet-stream",
        "ETag": tag,
        "X-Content-Type-Options": "nosniff",
    }
    if _names_tag(request.headers.get("If-None-Match"), tag):
        return Response(status_code=304, headers=headers)
    try:
        # RFC 9110, 13.1.5: a part of another state of the object is of no use to whoever has the rest of this one.
        unchanged = request.headers.get("If-Range", tag) == tag
        part = select_part(request.headers.get("Range") if unchanged else None, found.size)
    except Unsatisfiable:
        return _plain(416, "The object has no such bytes.", {"Content-Range": f"bytes */{found.size}"})
    whole = Part(0, found.size)
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.start + part.length - 1}/{found.size}"
    headers["Content-Length"] = str((part or whole).length)
    status = 200 if part is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    if data is not None:
        wanted = part or whole
        return Response(data[wanted.start : wanted.start + wanted.length], status_code=status, headers=headers)
    return _Content(storage, key, part or whole, status=status, headers=headers)


class _Content(Response):
    """Sends a part of an object block by block, so that memory does not grow with its size."""

    def __init__(self, storage: Reader, key: Key, part: Part, *, status: int, headers: dict[str, str]) -> None:
        super().__init__(status_code=status, headers=headers)
        self._storage = storage
        self._key = key
        self._part = part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        with contextlib.ExitStack() as stack:
            part = self._part
            blocks = stack.enter_context(self._storage.stream(self._key, start=part.start, length=part.length))
            left = part.length
            # An error now can no longer be said; raising it breaks the connection, so that nobody takes the part
            # that was sent for the whole.
            while left > 0:
                block = await run_in_threadpool(next, blocks)
                left -= len(block)
                await send({"type": "http.response.body", "body": block, "more_body": left > 0})
        if part.length == 0:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _names_tag(header: str | None, tag: str) -> bool:
    """Tell whether an ``If-None-Match`` names this tag, weakly compared (RFC 9110, 13.1.2)."""
    names = [name.strip().removeprefix("W/") for name in (header or "").split(",")]
    return tag in names or names == ["*"]


def _plain(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    # Never kept by a cache: what is missing now may be published a second later.
    return PlainTextResponse(text + "\n", status, {"Cache-Control": "no-store", **(headers or {})})
