"""Connections for reading over HTTP: TLS, proxies, and sockets whose every read is watched.

urllib3 speaks HTTP and keeps connections; when to try again, where to be redirected and what an answer means is
decided by its caller. The environment (proxy variables) is not read here.
"""

from __future__ import annotations

import io
import ssl
from contextvars import ContextVar
from datetime import datetime
from http.client import HTTPResponse
from pathlib import Path
from socket import SocketIO, socket
from typing import Any, Final, cast

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from instar.errors import Misconfigured
from instar.storage._pace import Pace

__all__ = ["make_manager", "make_tls", "watched"]

watched: Final[ContextVar[Pace]] = ContextVar("watched")
"""The pace of the request that this thread is sending: urllib3 leaves no other way to hand it to the connection."""

# OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python does not name.
_NO_CHECK_TIME: Final = 0x200000
# Where systems keep the authorities they trust. A frozen app brings an OpenSSL that looks where its builder kept them.
_SYSTEM_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


class _WatchedStream(io.RawIOBase):
    """A socket's incoming bytes. A timeout of the socket alone never stops a server that sends a byte now and then."""

    def __init__(self, raw: SocketIO, connection: socket, pace: Pace) -> None:
        self._raw = raw
        self._connection = connection
        self._pace = pace

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401  # typeshed's WriteableBuffer
        # Not when closed: urllib3 lets a connection go before it asks for the end of what was on it.
        self._connection.settimeout(self._pace.patience())
        count = self._raw.readinto(buffer)
        self._pace.note(count or 0)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _WatchedResponse(HTTPResponse):
    def __init__(self, sock: socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        raw = cast("SocketIO", self.fp.detach())
        self.fp = io.BufferedReader(_WatchedStream(raw, sock, watched.get()))


class _Connection(HTTPConnection):
    response_class = _WatchedResponse


class _SecureConnection(HTTPSConnection):
    response_class = _WatchedResponse


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def make_tls(ca_file: Path | None, *, now: datetime, not_before: datetime | None) -> ssl.SSLContext:
    """Make the rules for TLS: certificates and host names are checked, always.

    Args:
        ca_file: PEM file of the only authorities to trust; the system's, for None.
        now: the machine's time.
        not_before: a time that is certainly past. A clock that shows an earlier one cannot judge the dates of
            certificates, so these alone are not checked then; freshness is what the signed metadata is for.

    Raises:
        Misconfigured: ``ca_file`` cannot be read, or holds no certificate.

    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        msg = f"The file of certificate authorities {ca_file} cannot be used: {error}."
        raise Misconfigured(msg, hint="Name a readable PEM file.") from error
    if ca_file is None:
        paths = ssl.get_default_verify_paths()
        if not paths.cafile and not paths.capath:
            for bundle in filter(lambda name: Path(name).is_file(), _SYSTEM_BUNDLES):
                context.load_verify_locations(bundle)
                break
    if not_before is not None and now < not_before:
        context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
    return context


def make_manager(
    tls: ssl.SSLContext,
    *,
    connections: int,
    connect_timeout: float,
    silence: float,
    proxy: str | None,
) -> urllib3.PoolManager:
    """Make the keeper of connections.

    Args:
        tls: the rules for TLS.
        connections: how many to keep open to one host.
        connect_timeout: seconds for a connection to come about, TLS included.
        silence: seconds to wait for a byte.
        proxy: ``http://[user:password@]host:port`` to go through; None to go straight.

    Raises:
        Misconfigured: ``proxy`` is not such an address.

    """
    common: dict[str, Any] = {
        "maxsize": connections,
        "timeout": urllib3.Timeout(connect=connect_timeout, read=silence),
        "retries": False,
        "ssl_context": tls,
    }
    manager: urllib3.PoolManager
    if proxy is None:
        manager = urllib3.PoolManager(**common)
    else:
        try:
            address = urllib3.util.parse_url(proxy)
            headers = urllib3.make_headers(proxy_basic_auth=address.auth) if address.auth else None
            manager = urllib3.ProxyManager(
                address._replace(auth=None).url,
                proxy_headers=headers,
                proxy_ssl_context=tls,
                **common,
            )
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            # The address itself is not shown: it may hold a password.
            msg = "The proxy's address cannot be used."
            raise Misconfigured(msg, hint="Give it like http://proxy.example:3128.") from error
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return manager
