"""A storage behind any web server or bucket, for reading.

Here a request is sent, repeated, resumed, or given up: a server may ignore ranges, refuse them, stop in the middle,
redirect, be slow, or send too much. Whether its bytes are the right ones is not checked here but by whoever holds
the signed digest.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import re
import ssl
import threading
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import SplitResult, urljoin, urlsplit

import urllib3

from instar.errors import Misconfigured, NotFound, Unavailable, Untrusted
from instar.storage import _connections
from instar.storage._pace import Pace, TooSlow
from instar.storage.keys import Key, is_immutable
from instar.storage.options import HttpOptions
from instar.storage.ports import READ_BLOCK, Reader, Stat, Traffic, shorter
from instar.system.clock import Clock, SystemClock

__all__ = ["HttpReader", "RequestRefused"]

_MAX_REDIRECTS: Final = 5
# Longest wait in seconds between two attempts, whatever the server asks for in Retry-After.
_MAX_WAIT: Final = 10.0
# Bytes after which an attempt was worth it and does not count as a failure: a connection that breaks every minute
# still brings a large download home, and one that brings nothing is given up.
_PROGRESS: Final = 64 * 1024
# Body of an answer that is not the object, in bytes: read to its end to keep the connection for the next request.
_SMALL_BODY: Final = 64 * 1024
_GONE: Final = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TRY_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_LOCKED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED})
_AMBIGUOUS: Final = re.compile(r"[\\\x00-\x1f\x7f]")
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)")


class RequestRefused(Unavailable):
    """The server holds the request itself to be wrong (another 4xx than those with a meaning of their own)."""


class _Again(Exception):
    # Not an error but a decision: this attempt failed and another may not.
    def __init__(self, reason: Unavailable, *, wait: float = 0.0, without_range: bool = False) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.wait = wait
        self.without_range = without_range


@dataclass
class _Progress:
    """Where a call is: the next byte of the object, how many are wanted, what the server turned out to be."""

    position: int
    left: int | None
    ended: bool = False
    without_range: bool = False
    etag: str | None = None

    @property
    def done(self) -> bool:
        return self.ended or self.left == 0

    def advance(self, count: int) -> None:
        self.position += count
        if self.left is not None:
            self.left -= count


class HttpReader(Reader):
    """Objects below ``base_url``.

    Args:
        base_url: ``https://host/path`` (``http://`` for this machine, or with ``insecure_http``).
        options: how to read.
        clock: for the deadline, the speed and the waiting.

    Raises:
        Misconfigured: the address or an option cannot be used.

    """

    def __init__(self, base_url: str, options: HttpOptions | None = None, *, clock: Clock | None = None) -> None:
        self._options = options if options is not None else HttpOptions()
        self._clock = clock if clock is not None else SystemClock()
        self._base = base_url.rstrip("/") + "/"
        self._origin = _origin(self._check_base(base_url))
        self._manager = _connections.make_manager(
            _connections.make_tls(
                self._options.ca_file,
                now=self._clock.now(),
                not_before=self._options.not_before,
            ),
            connections=self._options.connections,
            connect_timeout=self._options.connect_timeout,
            silence=self._options.silence_timeout,
            proxy=self._options.proxy,
        )
        self._traffic = Traffic()
        self._counting = threading.Lock()

    @property
    def base_url(self) -> str:
        """Where the objects are."""
        return self._base

    @property
    def traffic(self) -> Traffic:
        """What has gone over the network so far: finished calls, and requests of running ones."""
        return self._traffic

    def close(self) -> None:
        """Close the connections that are kept."""
        self._manager.clear()

    def read_query(self, query: str, *, limit: int) -> bytes:
        """Ask what is behind the address itself, with a query behind a question mark.

        Args:
            query: what to ask, percent-encoded.
            limit: bytes that the answer may have.

        Raises:
            NotFound, Unavailable, Untrusted, Misconfigured: as for :meth:`read`.

        """
        # Not a key: this is no object. What follows treats it as one that is never kept.
        asked = cast("Key", f"?{query}")
        data = bytearray()
        for block in self._fetch(asked, _Progress(0, None), self._pace(self._options.deadline)):
            data += block
            if len(data) > limit:
                msg = f"The answer of {self._base} is longer than the {limit} bytes it may have."
                raise Untrusted(msg)
        return bytes(data)

    def _check_base(self, url: str) -> SplitResult:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
            urllib3.util.parse_url(url)
        except (ValueError, urllib3.exceptions.HTTPError):
            host, parts = None, urlsplit("")
        if not host or parts.scheme not in {"http", "https"} or parts.query or parts.fragment:
            msg = f"{url[:200]!r} is not the address of a repository."
            raise Misconfigured(msg, hint="Give it like https://updates.example.com/myapp.")
        if parts.username is not None or parts.password is not None:
            msg = "The address of a repository cannot hold a user name or password."
            raise Misconfigured(msg, hint="Give them with the authorization option.")
        if not self._is_safe(parts):
            msg = f"{url[:200]!r} is not protected by TLS."
            raise Misconfigured(msg, hint="Use https://, or the option insecure_http where that is acceptable.")
        return parts

    def _is_safe(self, parts: SplitResult) -> bool:
        return parts.scheme == "https" or _is_loopback(parts.hostname or "") or self._options.insecure_http

    def _blocks(self, key: Key, start: int, length: int | None) -> Generator[bytes]:
        options = self._options
        total = None if length is None else options.deadline + length / options.least_speed
        return self._fetch(key, _Progress(start, length), self._pace(total))

    def _whole(self, key: Key, limit: int) -> Generator[bytes]:
        del limit
        return self._fetch(key, _Progress(0, None), self._pace(self._options.deadline))

    def _stat(self, key: Key) -> Stat:
        with self._watching(self._pace(self._options.deadline)) as pace:
            failures = 0
            while True:
                try:
                    return self._ask(key, pace)
                except _Again as again:
                    failures += 1
                    self._wait(again, failures, pace)

    def _pace(self, total: float | None) -> Pace:
        options = self._options
        return Pace(
            self._clock,
            total=total,
            silence=options.silence_timeout,
            least_speed=options.least_speed,
            window=options.speed_window,
        )

    @contextlib.contextmanager
    def _watching(self, pace: Pace) -> Iterator[Pace]:
        pace.resume()
        try:
            yield pace
        finally:
            self._count(Traffic(received=pace.received))

    def _fetch(self, key: Key, progress: _Progress, pace: Pace) -> Generator[bytes]:
        """Attempt until everything is there, the object ends, or there is no hope."""
        failures = 0
        with self._watching(pace):
            while not progress.done:
                before = progress.position
                try:
                    with contextlib.closing(self._attempt(key, progress, pace)) as blocks:
                        for block in blocks:
                            self._count(Traffic(content=len(block)))
                            pace.pause()
                            yield block
                            pace.resume()
                except _Again as again:
                    if again.without_range and not progress.without_range:
                        progress.without_range = True  # another question, not another attempt
                        continue
                    failures = 1 if progress.position - before >= _PROGRESS else failures + 1
                    self._wait(again, failures, pace)

    def _wait(self, again: _Again, failures: int, pace: Pace) -> None:
        if failures >= self._options.attempts:
            raise again.reason from again
        wait = min(_MAX_WAIT, max(again.wait, self._options.backoff * 2 ** (failures - 1)))
        try:
            left = pace.left()
        except TooSlow:
            left = 0.0
        if left is not None and left <= wait:
            raise again.reason from again
        self._clock.sleep(wait)

    def _attempt(self, key: Key, progress: _Progress, pace: Pace) -> Generator[bytes]:
        """Send one request and give what is wanted of its answer."""
        headers = {}
        whole = progress.position == 0 and progress.left is None
        if not whole and not progress.without_range:
            last = "" if progress.left is None else progress.position + progress.left - 1
            headers["Range"] = f"bytes={progress.position}-{last}"
        with self._explained(key):
            response = self._request("GET", key, headers, pace)
        try:
            with self._explained(key):
                skip, end = self._judge(key, response, progress, asked_range="Range" in headers)
            yield from self._body(key, response, progress, skip)
            if end is None:
                # Without a length only chunked coding tells an end from a broken connection. A caller who asked for
                # everything gets what came; he checks it anyway.
                progress.ended = _is_chunked(response) or progress.left is None
            else:
                progress.ended = progress.position >= end
            if not progress.done:
                raise _Again(self._unavailable(f"gave only a part of {key}"))
        finally:
            response.close()

    def _judge(
        self,
        key: Key,
        response: urllib3.BaseHTTPResponse,
        progress: _Progress,
        *,
        asked_range: bool,
    ) -> tuple[int, int | None]:
        """Decide what an answer is good for: bytes to skip, and where the object ends (None: with the answer)."""
        status = response.status
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and asked_range:
            # The truth may be that the object is too short, or that this server cannot do ranges: asking without
            # one tells.
            self._discard(response)
            reason = self._unavailable(f"refused to give a part of {key}")
            raise _Again(reason, without_range=True)
        if status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
            raise self._refusal(key, response)
        self._check_same(key, response, progress)
        if status == HTTPStatus.PARTIAL_CONTENT:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if not asked_range or match is None or match[1] is None or int(match[1]) != progress.position:
                reason = self._unavailable(f"gave another part of {key} than it was asked for")
                raise _Again(reason, without_range=True)
            return 0, None if match[3] == "*" else int(match[3])
        size = response.length_remaining
        if size is not None and size < progress.position:
            raise shorter(key, progress.position - size)
        return progress.position, size

    def _check_same(self, key: Key, response: urllib3.BaseHTTPResponse, progress: _Progress) -> None:
        # Only for what may change: the machines behind one address often disagree on the tags of the same file.
        etag = response.headers.get("ETag")
        if progress.etag is not None and etag is not None and etag != progress.etag and not is_immutable(key):
            msg = f"{key} was replaced while it was being read."
            raise Unavailable(msg, hint="Try again.")
        progress.etag = etag

    def _body(
        self,
        key: Key,
        response: urllib3.BaseHTTPResponse,
        progress: _Progress,
        skip: int,
    ) -> Generator[bytes]:
        while progress.left is None or progress.left > 0:
            wanted = READ_BLOCK
            if progress.left is not None:
                wanted = min(wanted, skip + progress.left)
            if response.length_remaining is not None:
                wanted = min(wanted, max(1, response.length_remaining))  # the end, too, is only known by reading it
            with self._explained(key):
                # Never more than one read of the socket: filling a block would wait for a server that trickles.
                block = response.read1(wanted, decode_content=False)
            if not block:
                break
            if skip:
                skipped = min(skip, len(block))
                skip -= skipped
                block = block[skipped:]
            if block:
                progress.advance(len(block))
                yield block
        if skip and _is_chunked(response):
            raise shorter(key, skip)

    def _ask(self, key: Key, pace: Pace) -> Stat:
        with self._explained(key):
            response = self._request("HEAD", key, {}, pace)
            try:
                if response.status != HTTPStatus.OK:
                    raise self._refusal(key, response)
                size = response.headers.get("Content-Length", "")
                if not re.fullmatch(r"\d{1,18}", size):
                    raise self._unavailable(f"does not say how long {key} is")
                return Stat(int(size), response.headers.get("ETag"))
            finally:
                self._discard(response)

    def _request(
        self,
        method: str,
        key: Key,
        headers: Mapping[str, str],
        pace: Pace,
    ) -> urllib3.BaseHTTPResponse:
        """Send a request and follow where the server points, within bounds."""
        # To S3 a plus in an address is a space.
        url = self._base + key.replace("+", "%2B")
        for _ in range(_MAX_REDIRECTS + 1):
            parts = urlsplit(url)
            sent = {"Accept-Encoding": "identity", "User-Agent": "instar", **headers}
            if not is_immutable(key):
                sent["Cache-Control"] = "no-cache"
            if _origin(parts) == self._origin:
                sent |= self._options.own_headers()
            self._count(Traffic(requests=1))
            pace.begin_attempt()
            token = _connections.watched.set(pace)
            try:
                response = self._manager.urlopen(
                    method,
                    url,
                    headers=sent,
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    decode_content=False,
                )
            finally:
                _connections.watched.reset(token)
            pace.end_head()
            if response.status not in _REDIRECTS:
                return response
            url = self._follow(parts, response)
        raise self._unavailable("redirects again and again")

    def _follow(self, here: SplitResult, response: urllib3.BaseHTTPResponse) -> str:
        self._discard(response)
        try:
            target = urljoin(here.geturl(), response.headers.get("Location", ""))
            parts = urlsplit(target)
            valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError as error:
            raise self._unavailable("redirects to what is not an address") from error
        # To urllib3 a backslash ends the host's name and to urlsplit it does not: whom secrets are for would be decided
        # by another host than the one that is asked.
        if not valid or "@" in parts.netloc or _AMBIGUOUS.search(target):
            raise self._unavailable("redirects to what is not an address")
        if not self._is_safe(parts) or (here.scheme == "https" and parts.scheme != "https"):
            raise self._unavailable("redirects to an address that is not protected by TLS")
        return target

    def _refusal(self, key: Key, response: urllib3.BaseHTTPResponse) -> Exception:
        """Make the error for an answer that is not the object."""
        self._discard(response)
        status = response.status
        if status in _GONE:
            hint = None
            if status == HTTPStatus.FORBIDDEN:  # what S3 says of an object that is not there, to whoever may not list
                hint = "Or it may not be read by everybody (403)."
            return NotFound(f"{self._base} holds no {key}.", hint=hint)
        if status in _LOCKED:
            whom = "proxy" if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED else "server"
            msg = f"The {whom} on the way to {self._base} asks who you are ({status})."
            return Misconfigured(msg, hint="Give a valid authorization, or the proxy with user and password.")
        reason = self._unavailable(f"answered {status} when asked for {key}")
        if status in _TRY_AGAIN:
            after = response.headers.get("Retry-After", "")
            return _Again(reason, wait=float(after) if re.fullmatch(r"\d{1,6}", after) else 0.0)
        if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return RequestRefused(reason.message, hint=reason.hint)
        return reason

    def _discard(self, response: urllib3.BaseHTTPResponse) -> None:
        """Be done with an answer; keep its connection when what is left of it is small."""
        budget = _SMALL_BODY
        with contextlib.suppress(urllib3.exceptions.HTTPError, OSError, http.client.HTTPException):
            while budget > 0 and (block := response.read1(budget, decode_content=False)):
                budget -= len(block)
        response.close()  # does nothing to the connection when the end was reached

    @contextlib.contextmanager
    def _explained(self, key: Key) -> Iterator[None]:
        """Turn what urllib3, TLS and sockets raise into our families, or into another attempt."""
        try:
            yield
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            causes = list(_causes(error))
            for cause in causes:
                if isinstance(cause, ssl.SSLCertVerificationError):
                    msg = f"The certificate of {self._base} is not trusted: {cause.verify_message}."
                    hint = "Check the address and this machine's clock; the CA file option names a private authority."
                    raise Unavailable(msg, hint=hint) from error
            slow = next((cause for cause in causes if isinstance(cause, TooSlow)), None)
            if slow is not None:
                reason = self._unavailable(f"is too slow for {key}: {slow}")
            elif isinstance(error, urllib3.exceptions.ReadTimeoutError):
                reason = self._unavailable(f"sent nothing of {key} for {self._options.silence_timeout:g} seconds")
            elif isinstance(error, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)):
                reason = self._unavailable("cannot be reached")
            elif isinstance(error, urllib3.exceptions.SSLError):
                reason = self._unavailable("does not speak TLS that this machine understands")
            elif isinstance(error, urllib3.exceptions.ProxyError):
                reason = self._unavailable("cannot be reached through the proxy")
            else:
                reason = self._unavailable(f"broke off in the middle of {key}")
            reason.__cause__ = error
            raise _Again(reason) from error

    def _unavailable(self, what: str) -> Unavailable:
        return Unavailable(f"{self._base} {what}.", hint="Check the connection, or try again later.")

    def _count(self, more: Traffic) -> None:
        with self._counting:
            self._traffic += more


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _is_chunked(response: urllib3.BaseHTTPResponse) -> bool:
    return "chunked" in response.headers.get("Transfer-Encoding", "").lower()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and what it wraps, the outermost first: urllib3 wraps by cause, by context and by argument."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        waiting += [found.__cause__, found.__context__, *(arg for arg in found.args if isinstance(arg, BaseException))]
