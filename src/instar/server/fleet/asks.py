"""What a device asks and what it is answered, as values. Every dialect translates to these and from these."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from instar.model.device import ThingName
from instar.model.job import ExecutionStatus, JobDocument, JobId, StatusDetails
from instar.policy.jobs import Execution

__all__ = [
    "Answer",
    "Ask",
    "Describe",
    "Described",
    "GetPending",
    "Pending",
    "Refusal",
    "Refused",
    "StartNext",
    "Summary",
    "Update",
    "Updated",
]

_SAID_BY_DEVICES: Final = frozenset(
    {ExecutionStatus.IN_PROGRESS, ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED, ExecutionStatus.REJECTED}
)


@dataclass(frozen=True, slots=True)
class GetPending:
    """Which jobs wait for me?"""

    thing: ThingName


@dataclass(frozen=True, slots=True)
class StartNext:
    """Give me the next job: one that I have begun before, else the oldest, which begins with these details."""

    thing: ThingName
    details: StatusDetails | None = None
    step_minutes: int | None = None


@dataclass(frozen=True, slots=True)
class Describe:
    """What is this job, and how do I stand with it? Without a job: the next one."""

    thing: ThingName
    job: JobId | None = None
    attempt: int | None = None
    with_document: bool = True


@dataclass(frozen=True, slots=True)
class Update:
    """This is how I stand with a job now.

    ``expected_version`` and ``attempt`` refuse it when something else has happened meanwhile; ``with_state`` and
    ``with_document`` ask for more in the answer.

    Raises:
        ValueError: the status is not one that devices say.

    """

    thing: ThingName
    job: JobId
    status: ExecutionStatus
    details: StatusDetails | None = None
    expected_version: int | None = None
    attempt: int | None = None
    step_minutes: int | None = None
    with_state: bool = False
    with_document: bool = False

    def __post_init__(self) -> None:
        if self.status not in _SAID_BY_DEVICES:
            msg = f"a device does not say that it is {self.status}"
            raise ValueError(msg)


Ask = GetPending | StartNext | Describe | Update


@dataclass(frozen=True, slots=True)
class Summary:
    """A job, and how the device stands with it."""

    job: JobId
    execution: Execution


@dataclass(frozen=True, slots=True)
class Pending:
    """What waits for a device, in order: first what it has begun, then by the time of queueing."""

    in_progress: tuple[Summary, ...] = ()
    queued: tuple[Summary, ...] = ()


@dataclass(frozen=True, slots=True)
class Described:
    """One execution, with its document where that was asked for; None where nothing is next."""

    summary: Summary | None
    document: JobDocument | None = None


@dataclass(frozen=True, slots=True)
class Updated:
    """The update was taken, and stays. What was asked for besides."""

    state: Execution | None = None
    document: JobDocument | None = None


class Refusal(Enum):
    """Why something was refused."""

    NOT_FOUND = "there is no such device, or it was not given such a job"
    INVALID_STATE = "that cannot happen to an execution that stands as this one"
    VERSION_MISMATCH = "something else has happened to it meanwhile"
    ENDED = "it has ended"


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing has changed. ``state`` is how the execution stands, where that helps."""

    why: Refusal
    message: str
    state: Execution | None = None


Answer = Pending | Described | Updated | Refused
