"""The service on a broker: takes what devices ask, lets the fleet answer, and tells devices what has changed.

Stateless: any number of these share one database and one broker (where that can give each request to one of them), and
any of them may die. Requests are gathered while the last ones are answered, and answered together in one transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

from gmqtt import Client, Subscription
from gmqtt.mqtt.constants import UNLIMITED_RECONNECTS, MQTTv50
from gmqtt.storage import PersistentStorage

from instar.compat.awsiot.answers import (
    Message,
    answer_message,
    event_message,
    notification_messages,
    rejection_message,
)
from instar.compat.awsiot.requests import Code, Rejection, Translated, translate
from instar.compat.awsiot.topics import REQUESTS, Request, parse_topic
from instar.errors import InstarError, Unavailable
from instar.server.fleet import Fleet
from instar.server.fleet.asks import Answer, Ask
from instar.system.clock import Clock

__all__ = ["Broker", "JobsService"]

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

# Requests that are answered in one transaction.
_BATCH: Final = 200
# Requests of one device that wait at once; one that waits for its answers never has more than a few.
_MAX_OF_ONE: Final = 16
# Requests of all devices that wait at once, at some hundred KB at worst: beyond that devices are told to come again.
_MAX_WAITING: Final = 5_000
# Seconds between two looks at what is due, where nothing says that something is.
_IDLE: Final = 0.5
# Seconds between two tries to reach the broker or the database, and to wait for the broker to take what it is told.
_RETRY: Final = 1.0
_TAKEN: Final = 20.0


@dataclass(frozen=True, slots=True)
class Broker:
    """Where a broker is, and as whom it is used.

    Attributes:
        host: its name or address.
        port: its port.
        username: our user name, where it asks for one.
        password: the secret for it.
        tls: how it is known to be the right one; None for a broker on this machine.
        group: what several of our processes share the requests under; None for one process. Mosquitto 2.0 takes shared
            subscriptions to topics that begin with ``$`` and then delivers nothing to them: one process there.

    """

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class _Waiting:
    request: Request
    payload: bytes


class JobsService:
    """Our half of AWS IoT Jobs on one broker.

    Args:
        fleet: what answers.
        broker: where devices are.
        clock: the time that stands in messages.

    """

    def __init__(self, fleet: Fleet, broker: Broker, clock: Clock) -> None:
        self._fleet = fleet
        self._broker = broker
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._of_one: Counter[str] = Counter()
        # One thread for all that the database does: SQLite has one writer, and devices are answered between steps.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fleet")

    async def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serve until cancelled. A broker or database that is away is waited for.

        Args:
            on_ready: called once devices are heard.

        """
        self._asked, self._changed = asyncio.Event(), asyncio.Event()
        taken = PersistentStorage()
        listening, telling = self._client("asks"), self._client("tells", taken)
        listening.on_message = self._hear
        heard = asyncio.Event()
        listening.on_connect = lambda *_: self._subscribe(listening)
        listening.on_subscribe = lambda *_, **__: heard.set()
        try:
            await self._connect(telling)
            await self._connect(listening)
            await heard.wait()
            on_ready()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._answer(listening))
                tasks.create_task(self._work(telling, taken))
        finally:
            for client in (listening, telling):
                with contextlib.suppress(Exception):
                    await client.disconnect()
            self._thread.shutdown()

    def _client(self, what: str, storage: PersistentStorage | None = None) -> Any:  # noqa: ANN401  # gmqtt is untyped
        client = Client(f"instar-{what}-{uuid.uuid4().hex}", persistent_storage=storage)
        if self._broker.username is not None:
            client.set_auth_credentials(self._broker.username, self._broker.password)
        client.set_config({"reconnect_retries": UNLIMITED_RECONNECTS, "reconnect_delay": _RETRY})
        return client

    async def _connect(self, client: Any) -> None:  # noqa: ANN401  # gmqtt is untyped
        while True:
            try:
                # MQTT 5, for requests that are shared among workers; devices may speak 3.1.1.
                await client.connect(
                    self._broker.host, self._broker.port, ssl=self._broker.tls or False, version=MQTTv50
                )
            except OSError as error:
                _log.warning("the broker cannot be reached: %s", error)
                await asyncio.sleep(_RETRY)
            else:
                return

    def _subscribe(self, client: Any) -> None:  # noqa: ANN401  # gmqtt is untyped
        shared = f"$share/{self._broker.group}/" if self._broker.group else ""
        client.subscribe([Subscription(f"{shared}{topic}", qos=1) for topic in REQUESTS])

    def _hear(self, client: Any, topic: str, payload: bytes, _qos: int, _properties: object) -> int:  # noqa: ANN401  # gmqtt is untyped
        request = parse_topic(topic)
        if request is None:
            return 0
        if self._of_one[request.thing] >= _MAX_OF_ONE or len(self._waiting) >= _MAX_WAITING:
            rejection = Rejection(Code.REQUEST_THROTTLED, "Too many requests wait. Come again later.")
            token = translate(request, payload).token
            self._publish(client, [rejection_message(request, rejection, token, self._clock.now())])
            return 0
        self._of_one[request.thing] += 1
        self._waiting.append(_Waiting(request, payload))
        self._asked.set()
        return 0

    async def _answer(self, client: Any) -> None:  # noqa: ANN401  # gmqtt is untyped
        while True:
            await self._asked.wait()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH))]
            if not self._waiting:
                self._asked.clear()
            messages = await self._in_thread(partial(self._messages_for, batch))
            for each in batch:
                self._of_one[each.request.thing] -= 1
                if not self._of_one[each.request.thing]:
                    del self._of_one[each.request.thing]
            self._publish(client, messages)
            self._changed.set()

    def _messages_for(self, batch: list[_Waiting]) -> list[Message]:
        translated = [(each.request, translate(each.request, each.payload)) for each in batch]
        asks = [said.ask for _, said in translated if not isinstance(said.ask, Rejection)]
        answers = iter(self._answers(asks))
        now = self._clock.now()
        return [self._message(request, said, answers, now) for request, said in translated]

    def _message(
        self,
        request: Request,
        said: Translated,
        answers: Iterable[Answer | None],
        now: datetime,
    ) -> Message:
        if isinstance(said.ask, Rejection):
            return rejection_message(request, said.ask, said.token, now)
        answer = next(iter(answers))
        if answer is None:
            failed = Rejection(Code.INTERNAL_ERROR, "The service could not do it. Ask how it stands, and come again.")
            return rejection_message(request, failed, said.token, now)
        return answer_message(request, answer, said.token, now)

    def _answers(self, asks: list[Ask]) -> list[Answer | None]:
        try:
            return list(self._fleet.answer(asks))
        except Unavailable as error:
            _log.warning("%d requests were not answered: %s", len(asks), error)
            return [None] * len(asks)
        except Exception:  # noqa: BLE001  # whatever one of them did, the others are not to suffer by it
            if len(asks) == 1:
                _log.exception("a request could not be answered")
                return [None]
            return [self._answers([ask])[0] for ask in asks]

    async def _work(self, client: Any, taken: PersistentStorage) -> None:  # noqa: ANN401  # gmqtt is untyped
        while True:
            self._changed.clear()
            try:
                more = await self._in_thread(self._fleet.work)
                more = await self._tell(client, taken) or more
            except InstarError as error:
                _log.warning("the fleet rests: %s", error)
                await asyncio.sleep(_RETRY)
                continue
            if not more:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), _IDLE)

    async def _tell(self, client: Any, taken: PersistentStorage) -> bool:  # noqa: ANN401  # gmqtt is untyped
        notices = await self._in_thread(self._fleet.take_notices)
        events = await self._in_thread(self._fleet.take_events)
        now = self._clock.now()
        self._publish(client, [message for each in notices for message in notification_messages(each, now)])
        self._publish(client, [event_message(each) for each in events])
        if not (notices or events):
            return False
        # Only what the broker has taken is forgotten; else it is told again, by us or by another.
        try:
            await asyncio.wait_for(taken.wait_empty(), _TAKEN)
        except TimeoutError:
            return False
        await self._in_thread(partial(self._fleet.told, notices))
        await self._in_thread(partial(self._fleet.told, events))
        return True

    @staticmethod
    def _publish(client: Any, messages: Iterable[Message]) -> None:  # noqa: ANN401  # gmqtt is untyped
        for topic, payload in messages:
            client.publish(topic, payload, qos=1)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
