"""How to read over HTTP, as one frozen value. Reads no environment and no file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from instar.errors import Misconfigured

__all__ = ["HttpOptions"]

# What the reader itself decides for each request.
_RESERVED: Final = frozenset({"accept-encoding", "connection", "content-length", "host", "range", "transfer-encoding"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """How to read over HTTP. Times are in seconds, speeds in bytes a second.

    Args:
        ca_file: PEM file of the only certificate authorities to trust; None for the system's.
        not_before: a time that is certainly past, such as that of the app's build: while the machine's clock shows
            an earlier one, the dates (and nothing else) of certificates are not checked.
        insecure_http: take ``http://`` for hosts other than this machine.
        proxy: ``http://[user:password@]host:port`` to go through.
        headers: sent with each request to the storage itself, never to where it redirects on another host.
        authorization: the value of the ``Authorization`` header, under the same rule.
        connect_timeout: for a connection to come about.
        silence_timeout: for the next byte.
        deadline: for a whole small object, repeated attempts and waiting included. A stream has in addition the
            time that its length takes at the least speed.
        least_speed: an average over ``speed_window`` below this is given up.
        speed_window: over which speed is measured.
        attempts: failures in a row, without any progress to speak of, after which a call gives up.
        backoff: wait after the first failure; doubled after each further one.
        connections: how many are kept open for the next request.

    Raises:
        Misconfigured: a header holds what a header cannot, or is one that the reader sets.

    """

    ca_file: Path | None = None
    not_before: datetime | None = None
    insecure_http: bool = False
    proxy: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    authorization: str | None = field(default=None, repr=False)
    connect_timeout: float = 10.0
    silence_timeout: float = 20.0
    deadline: float = 60.0
    least_speed: float = 1024.0
    speed_window: float = 30.0
    attempts: int = 4
    backoff: float = 0.2
    connections: int = 8

    def __post_init__(self) -> None:
        for name, value in self.own_headers().items():
            if name.lower() in _RESERVED:
                msg = f"The header {name} cannot be chosen: it is set for each request."
                raise Misconfigured(msg)
            if not re.fullmatch(r"[A-Za-z0-9-]+", name) or not (value.isascii() and value.isprintable()):
                msg = f"The header {name[:80]!r} cannot be sent: a name or value holds a character that is not allowed."
                raise Misconfigured(msg)

    def own_headers(self) -> dict[str, str]:
        """Give the headers that are meant for the storage alone."""
        return {**self.headers, **({} if self.authorization is None else {"Authorization": self.authorization})}
