"""A broker with our service on it, and a device that says what a test wants, for tests on a real Mosquitto."""

import asyncio
import contextlib
import json
import os
import queue
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gmqtt import Client
from gmqtt.mqtt.constants import MQTTv50, MQTTv311

from instar.compat.awsiot.mosquitto import SERVICE_USER, Certificates, Mosquitto, configuration, find_mosquitto
from instar.compat.awsiot.runner import Broker, JobsService
from instar.server.fleet import Fleet
from instar.system.clock import Clock, SystemClock
from tests.support.databases import free_port

WAIT = 30.0


@contextlib.contextmanager
def private_broker(folder: Path, tls: tuple[int, Certificates] | None = None) -> Iterator[Mosquitto]:
    broker = Mosquitto(
        find_mosquitto(os.environ["PATH"]), folder / "mosquitto", free_port(), clock=SystemClock(), tls=tls
    )
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@contextlib.contextmanager
def open_broker(folder: Path) -> Iterator[int]:
    """A broker that lets anybody in, for a peer that can show neither a name nor, on this port, a certificate."""
    port = free_port()
    text = configuration(folder, port)
    lines = [line for line in text.splitlines() if not line.startswith(("password_file", "acl_file"))]
    (folder / "open.conf").write_text("\n".join(lines).replace("allow_anonymous false", "allow_anonymous true") + "\n")
    process = subprocess.Popen([find_mosquitto(os.environ["PATH"]), "-c", folder / "open.conf"])
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def service_on(fleet: Fleet, broker: Broker, clock: Clock) -> Iterator[None]:
    """Our service, in a thread of its own."""
    ready = threading.Event()
    failed: list[BaseException] = []
    ending: list[Callable[[], object]] = []

    async def main() -> None:
        task = asyncio.create_task(JobsService(fleet, broker, clock).run(ready.set))
        loop = asyncio.get_running_loop()
        ending.append(lambda: loop.call_soon_threadsafe(task.cancel))
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001  # told to the test below
            failed.append(error)
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(WAIT)
        assert failed == []
        yield
    finally:
        if not failed:
            ending[0]()
        thread.join(WAIT)
    assert failed == []


def as_service(broker: Mosquitto) -> Broker:
    return Broker("127.0.0.1", broker.port, SERVICE_USER, broker.secret)


class DeviceOnBroker:
    """A client of a broker that hears all it may of its own jobs; in a thread of its own."""

    def __init__(
        self,
        port: int,
        name: str,
        secret: str | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        mqtt5: bool = False,
        listen: tuple[str, ...] | None = None,
        patience: float = WAIT,
    ) -> None:
        self.heard: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.name = name
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._subscribed = threading.Event()
        topics = listen or (f"$aws/things/{name}/jobs/#",)

        async def connect() -> None:
            client = Client(f"device-{name}-{port}")
            if secret is not None:
                client.set_auth_credentials(name, secret)
            client.set_config({"reconnect_retries": 0})
            client.on_message = self._hear
            client.on_subscribe = lambda *_, **__: self._subscribed.set()
            self._client = client
            await asyncio.wait_for(
                client.connect("127.0.0.1", port, ssl=tls or False, version=MQTTv50 if mqtt5 else MQTTv311), patience
            )
            for topic in topics:
                client.subscribe(topic, qos=1)

        try:
            self._do(connect())
            assert self._subscribed.wait(WAIT)
        except BaseException:
            self.close()
            raise

    def _hear(self, _client: Any, topic: str, payload: bytes, _qos: int, _properties: Any) -> int:
        self.heard.put((topic, json.loads(payload) if payload else None))
        return 0

    def say(self, topic: str, payload: Any = b"") -> None:
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()

        async def publish() -> None:
            self._client.publish(topic, data, qos=1)

        self._do(publish())

    def ask(self, rest: str, payload: Any = b"") -> tuple[str, Any]:
        """Ask, and give how it was answered: accepted or rejected, and with what."""
        topic = f"$aws/things/{self.name}/jobs/{rest}"
        self.say(topic, payload)
        answer = self.next(lambda heard: heard.startswith(topic + "/"))
        return answer[0].rpartition("/")[2], answer[1]

    def next(self, wanted: Callable[[str], bool], timeout: float = WAIT) -> tuple[str, Any]:
        """Give the next of what is heard that is wanted; what comes before it is let go."""
        until = time.monotonic() + timeout
        while True:
            topic, payload = self.heard.get(timeout=max(until - time.monotonic(), 0.001))
            if wanted(topic):
                return topic, payload

    def silent(self, seconds: float = 1.0) -> bool:
        """Whether nothing is heard for a while."""
        try:
            self.heard.get(timeout=seconds)
        except queue.Empty:
            return True
        return False

    def close(self) -> None:
        async def disconnect() -> None:
            with contextlib.suppress(Exception):
                await self._client.disconnect()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        self._do(disconnect())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT)
        self._loop.close()

    def _do(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT)
