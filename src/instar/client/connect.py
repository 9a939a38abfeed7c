"""From what an app says about its repository to a reader of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from instar.client.config import Config
from instar.storage import HttpOptions, Reader, open_reader

__all__ = ["connect"]


@contextlib.contextmanager
def connect(config: Config, reader: Reader | None) -> Iterator[Reader]:
    """Give ``reader``, or else one for the addresses in ``config``, closed at the end of the block.

    Raises:
        Misconfigured: an address cannot be used.

    """
    if reader is not None:
        yield reader
        return
    connection = config.connection
    options = HttpOptions(
        headers=connection.headers,
        proxy=connection.proxy,
        ca_file=connection.ca_file,
        insecure_http=connection.insecure_http,
        not_before=config.build_time,
    )
    with open_reader(config.urls, options, clock=config.clock) as opened:
        yield opened
