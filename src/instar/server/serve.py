"""Running the application on granian in this process, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from granian.constants import Interfaces
from granian.server.embed import Server
from starlette.types import ASGIApp

from instar.errors import Misconfigured, Unavailable
from instar.server.app import make_app
from instar.storage import LocalStorage

__all__ = ["Serving", "serve", "serve_app"]

_MAX_PORT: Final = 65535
# Addresses that mean every network, and where this machine itself reaches what listens there.
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared, not bound

# Seconds within which a server on this machine answers after it was started, on a machine under load.
_START_TIMEOUT: Final = 30.0
# Seconds between two tries to reach it.
_START_POLL: Final = 0.02
# Seconds between two looks at whether its threads have ended, and how many looks before that is believed.
_END_POLL: Final = 0.02
_END_POLLS: Final = 25


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that is up.

    Attributes:
        url: its address for this machine.
        port: the port that it listens on.
        stop: ends it; safe to call from any thread, and more than once.

    """

    url: str
    port: int
    stop: Callable[[], None]


def serve(
    storage_root: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_ready: Callable[[Serving], None] | None = None,
) -> None:
    """Serve the repository in a folder over HTTP, until stopped, interrupted or terminated.

    Args:
        storage_root: the folder that holds ``metadata/``, ``targets/`` and ``packs/``.
        host: the address to listen on; by default only this machine can reach it.
        port: the port to listen on; 0 takes a free one.
        on_ready: called once it answers, on the server's own thread.

    Raises:
        Misconfigured: there is no such folder, or the address or port cannot be used.
        Unavailable: it did not come up, or ended by itself.

    """
    if not storage_root.is_dir():
        msg = f"There is no repository in {storage_root}."
        raise Misconfigured(msg, hint="Publish a release first, or name another folder.")
    serve_app(make_app(LocalStorage(storage_root)), host, port, on_ready)


def serve_app(app: ASGIApp, host: str, port: int, on_ready: Callable[[Serving], None] | None = None) -> None:
    """Serve an application over HTTP, until stopped, interrupted or terminated.

    Args:
        app: what answers.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        on_ready: called once it answers, on the server's own thread.

    Raises:
        Misconfigured: the address or port cannot be used.
        Unavailable: it did not come up, or ended by itself.

    """
    before = _count_threads()
    try:
        asyncio.run(_serve(app, host, port, on_ready))
    finally:
        _wait_for_threads(before)


async def _serve(app: ASGIApp, host: str, port: int, on_ready: Callable[[Serving], None] | None) -> None:
    with _reserved(host, port) as (address, free_port):
        server = Server(
            app,
            address=address,
            port=free_port,
            interface=Interfaces.ASGINL,
            websockets=False,
            log_enabled=False,
        )
        running = asyncio.create_task(server.serve())
        try:
            await _wait_until_up(address, free_port, running)
        except BaseException:
            running.cancel()
            raise
    loop = asyncio.get_running_loop()
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        with contextlib.suppress(RuntimeError):  # it has ended already
            loop.call_soon_threadsafe(server.stop)

    with _stopping_on_signals(loop, stop):
        if on_ready is not None:
            reachable = _EVERYWHERE.get(address, address)
            shown = f"[{reachable}]" if ":" in reachable else reachable
            on_ready(Serving(f"http://{shown}:{free_port}", free_port, stop))
        await running
    if not stopped:
        msg = "The server ended by itself."
        raise Unavailable(msg, hint="Start it again.")


def _count_threads() -> int | None:
    """Count this process's threads, those that Python does not know among them; None where the system does not tell."""
    try:
        return sum(1 for _ in Path("/proc/self/task").iterdir())
    except OSError:
        return None


def _wait_for_threads(before: int | None) -> None:
    """Let granian's own threads end. One that still drops its Python objects while Python shuts down aborts us."""
    for _ in range(_END_POLLS):
        now = _count_threads()
        if before is not None and now is not None and now <= before:
            return
        time.sleep(_END_POLL)


@contextlib.contextmanager
def _reserved(host: str, port: int) -> Iterator[tuple[str, int]]:
    """Find the numeric address, and see that the port is free, before the server binds it.

    granian shares ports (SO_REUSEPORT): two servers on one port would each answer some requests, silently.
    """
    if not 0 <= port <= _MAX_PORT:  # getaddrinfo would take the remainder
        msg = f"There is no port {port}."
        raise Misconfigured(msg, hint=f"Choose one up to {_MAX_PORT}; 0 takes a free one.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        msg = f"{host!r} is not an address of this machine."
        raise Misconfigured(msg, hint="Use 127.0.0.1, or 0.0.0.0 for every network.") from error
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        option, sharing = socket.SO_REUSEADDR, False
        if sys.platform != "win32" and port == 0:
            option, sharing = socket.SO_REUSEPORT, True
        # A free port is kept until the server shares it, so that nobody else takes it in between; a port that was
        # asked for must not be anybody's.
        probe.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            probe.bind(address)
        except (OSError, OverflowError) as error:
            msg = f"Port {port} of {host} cannot be used: {error}."
            raise Misconfigured(msg, hint="Choose another port, or end what uses this one.") from error
        name = probe.getsockname()
        if not sharing:
            probe.close()
        yield name[0], name[1]


async def _wait_until_up(address: str, port: int, running: asyncio.Task[None]) -> None:
    reachable = _EVERYWHERE.get(address, address)
    try:
        async with asyncio.timeout(_START_TIMEOUT):
            while not running.done():
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(reachable, port)
                    writer.close()
                    await writer.wait_closed()
                    return
                await asyncio.sleep(_START_POLL)
    except TimeoutError as error:
        msg = f"The server did not answer within {_START_TIMEOUT:g} seconds."
        raise Unavailable(msg, hint="Try again.") from error
    msg = "The server ended before it answered."
    raise Unavailable(msg, hint="Try again.") from running.exception()


@contextlib.contextmanager
def _stopping_on_signals(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> Iterator[None]:
    """Let an interrupt or a termination end the server in order. Only the main thread is told of signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken: list[signal.Signals] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows: asyncio ends the loop by itself
            loop.add_signal_handler(number, stop)
            taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)
