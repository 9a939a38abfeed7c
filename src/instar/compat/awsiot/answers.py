"""What devices hear, as the payloads of the protocol.

The traps are marked with their number: times are whole seconds since 1970 (1), the document is an object, not text (2),
and the token comes back whatever the answer is (5).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from instar.compat.awsiot.requests import Code, Rejection
from instar.compat.awsiot.topics import Request, notify, notify_next
from instar.model.device import ThingName
from instar.model.job import JobDocument
from instar.policy.jobs import Execution
from instar.server.fleet import Notification
from instar.server.fleet.asks import Answer, Described, Pending, Refusal, Refused, Summary, Updated
from instar.server.store.outbox import JobEvent

__all__ = ["Message", "answer_message", "event_message", "notification_messages", "rejection_message"]

Message = tuple[str, bytes]
"""A topic and what is said there."""

# Entries of a list that a device is told of; it asks for the others.
_MAX_LISTED: Final = 10
# Documents that are kept parsed.
_DOCUMENTS: Final = 256
# Any one, always the same: an event that is told twice has the same id.
_EVENTS: Final = uuid.UUID("6f1d3f0e-6a52-4a0e-9f0e-1d5f7a3a9c11")

_CODES: Final[Mapping[Refusal, Code]] = {
    Refusal.NOT_FOUND: Code.RESOURCE_NOT_FOUND,
    Refusal.INVALID_STATE: Code.INVALID_STATE_TRANSITION,
    Refusal.VERSION_MISMATCH: Code.VERSION_MISMATCH,
    Refusal.ENDED: Code.TERMINAL_STATE_REACHED,
}


def answer_message(request: Request, answer: Answer, token: str | None, now: datetime) -> Message:
    """Give what a device is answered, and where."""
    body: dict[str, Any]
    match answer:
        case Refused():
            body = {"code": _CODES[answer.why], "message": answer.message}
            if answer.state is not None:
                body["executionState"] = _state(answer.state)
            return request.rejected, _payload(body, token, now)
        case Pending():
            body = {
                "inProgressJobs": [_summary(each) for each in answer.in_progress],
                "queuedJobs": [_summary(each) for each in answer.queued],
            }
        case Described():
            body = _described(ThingName(request.thing), answer, now)
        case Updated():
            body = {} if answer.state is None else {"executionState": _state(answer.state)}
            if answer.document is not None:
                body["jobDocument"] = _parsed(answer.document)
    return request.accepted, _payload(body, token, now)


def rejection_message(request: Request, rejection: Rejection, token: str | None, now: datetime) -> Message:
    """Give what a device is told about a request that is wrong in itself, and where."""
    return request.rejected, _payload({"code": rejection.code, "message": rejection.message}, token, now)


def notification_messages(said: Notification, now: datetime) -> list[Message]:
    """Give what a device is told by itself, and where."""
    messages = []
    if said.pending is not None:
        listed = {
            "IN_PROGRESS": [_summary(each) for each in said.pending.in_progress][:_MAX_LISTED],
            "QUEUED": [_summary(each) for each in said.pending.queued],
        }
        listed["QUEUED"] = listed["QUEUED"][: _MAX_LISTED - len(listed["IN_PROGRESS"])]
        # A list that is empty is not there at all.
        body = {"jobs": {status: entries for status, entries in listed.items() if entries}}
        messages.append((notify(said.thing), _payload(body, None, now)))
    if said.next is not None:
        messages.append((notify_next(said.thing), _payload(_described(said.thing, said.next, now), None, now)))
    return messages


def event_message(event: JobEvent) -> Message:
    """Give what others are told of a job or of an execution, and where."""
    kind = "jobExecution" if event.thing else "job"
    body: dict[str, Any] = {
        "eventType": "JOB_EXECUTION" if event.thing else "JOB",
        "eventId": str(uuid.uuid5(_EVENTS, f"{event.number} {event.job} {event.thing} {event.what}")),
        "operation": event.what,
        "jobId": event.job,
    }
    if event.thing:
        body |= {"thingName": event.thing, "status": event.what.upper()}
    return f"$aws/events/{kind}/{event.job}/{event.what}", _payload(body, None, event.at)


def _described(thing: ThingName, answer: Described, now: datetime) -> dict[str, Any]:
    if answer.summary is None:
        return {}
    execution = answer.summary.execution
    body = {
        **_summary(answer.summary),
        "thingName": thing,
        "status": execution.status,
    }
    if answer.document is not None:
        body["jobDocument"] = _parsed(answer.document)
    if execution.details.pairs:
        body["statusDetails"] = dict(execution.details.pairs)
    if execution.due is not None:
        body["approximateSecondsBeforeTimedOut"] = max(int((execution.due - now).total_seconds()), 0)
    return {"execution": body}


def _summary(summary: Summary) -> dict[str, Any]:
    execution = summary.execution
    body = {
        "jobId": summary.job,
        "queuedAt": _seconds(execution.queued_at),
        "lastUpdatedAt": _seconds(execution.updated_at),
        "versionNumber": execution.version,
        "executionNumber": execution.attempt,
    }
    if execution.started_at is not None:
        body["startedAt"] = _seconds(execution.started_at)
    return body


def _state(execution: Execution) -> dict[str, Any]:
    return {
        "status": execution.status,
        "statusDetails": dict(execution.details.pairs),
        "versionNumber": execution.version,
    }


@lru_cache(_DOCUMENTS)
def _parsed(document: JobDocument) -> dict[str, Any]:
    # Trap 2. Only ever written out again; nobody changes it.
    return document.value


def _seconds(time: datetime) -> int:
    # Trap 1.
    return int(time.timestamp())


def _payload(body: Mapping[str, Any], token: str | None, now: datetime) -> bytes:
    # Trap 5.
    bears = {} if token is None else {"clientToken": token}
    whole = {**body, "timestamp": _seconds(now), **bears}
    return json.dumps(whole, separators=(",", ":")).encode()
