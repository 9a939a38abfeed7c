"""The topics of the protocol, below ``$aws/things/{thing}/jobs/``. Whether a device may use one, the broker checks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["NEXT", "REQUESTS", "Operation", "Request", "notify", "notify_next", "parse_topic"]

NEXT: Final = "$next"
"""What stands in place of a job's id for whatever is next."""

REQUESTS: Final = (
    "$aws/things/+/jobs/get",
    "$aws/things/+/jobs/start-next",
    "$aws/things/+/jobs/+/get",
    "$aws/things/+/jobs/+/update",
)
"""What devices publish to. None of these matches what they are answered on."""

# Levels of `$aws/things/{thing}/jobs/{operation}`, and with a job's id.
_SHORT: Final = 5
_LONG: Final = 6


class Operation(Enum):
    """What is asked."""

    GET_PENDING = "get"
    START_NEXT = "start-next"
    DESCRIBE = "describe"
    UPDATE = "update"


@dataclass(frozen=True, slots=True)
class Request:
    """A topic that was read. Its names are still as the device wrote them.

    Attributes:
        topic: the whole of it; answers go below it.
        operation: what is asked.
        thing: by whom.
        job: about which job; empty where about none.

    """

    topic: str
    operation: Operation
    thing: str
    job: str = ""

    @property
    def accepted(self) -> str:
        """Where the answer goes."""
        return f"{self.topic}/accepted"

    @property
    def rejected(self) -> str:
        """Where it is said that there is none."""
        return f"{self.topic}/rejected"


def parse_topic(topic: str) -> Request | None:
    """Read a topic that devices publish to; None where it is none of those."""
    levels = topic.split("/")
    if len(levels) not in {_SHORT, _LONG} or levels[:2] != ["$aws", "things"] or levels[3] != "jobs":
        return None
    match levels[4:]:
        case ["get"]:
            return Request(topic, Operation.GET_PENDING, levels[2])
        case ["start-next"]:
            return Request(topic, Operation.START_NEXT, levels[2])
        case [job, "get"]:
            return Request(topic, Operation.DESCRIBE, levels[2], job)
        case [job, "update"]:
            return Request(topic, Operation.UPDATE, levels[2], job)
        case _:
            return None


def notify(thing: str) -> str:
    """Give where a device hears that its list has changed."""
    return f"$aws/things/{thing}/jobs/notify"


def notify_next(thing: str) -> str:
    """Give where a device hears that its next job is another."""
    return f"$aws/things/{thing}/jobs/notify-next"
