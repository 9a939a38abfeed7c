"""What a device's question does: the four operations of AWS IoT Jobs, on values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from instar.model.device import ThingName
from instar.model.job import ExecutionStatus, JobId
from instar.policy.jobs import Event, Fail, InvalidTransition, Progress, Reject, Report, Start, Succeed
from instar.server.fleet.asks import (
    Answer,
    Ask,
    Describe,
    Described,
    GetPending,
    Pending,
    Refusal,
    Refused,
    StartNext,
    Summary,
    Update,
    Updated,
)
from instar.server.fleet.desk import Desk
from instar.server.store.executions import Standing

__all__ = ["answer", "pending_for"]

_ENDS: Final[Mapping[ExecutionStatus, type[Report]]] = {
    ExecutionStatus.SUCCEEDED: Succeed,
    ExecutionStatus.FAILED: Fail,
    ExecutionStatus.REJECTED: Reject,
}


def answer(desk: Desk, numbers: Mapping[ThingName, int], ask: Ask) -> Answer:
    """Do what a device asks, and give what it is answered.

    Args:
        desk: the transaction, with the device in it where there is such a device.
        numbers: the devices' numbers by their names.
        ask: what it asks.

    """
    number = numbers.get(ask.thing)
    if number is None:
        return Refused(Refusal.NOT_FOUND, f"No device {ask.thing} is enrolled.")
    match ask:
        case GetPending():
            return pending_for(desk, number)
        case StartNext():
            return _start_next(desk, number, ask)
        case Describe():
            return _describe(desk, number, ask)
        case Update():
            return _update(desk, number, ask)


def pending_for(desk: Desk, number: int) -> Pending:
    """Give what waits for a device."""
    found = desk.pending(number)
    return Pending(
        in_progress=tuple(_summary(each) for each in found if each.execution.status is ExecutionStatus.IN_PROGRESS),
        queued=tuple(_summary(each) for each in found if each.execution.status is ExecutionStatus.QUEUED),
    )


def _start_next(desk: Desk, number: int, ask: StartNext) -> Answer:
    found = desk.pending(number)
    if not found:
        return Described(None)
    head = found[0]
    attempt = head.execution.attempt
    if head.execution.status is ExecutionStatus.QUEUED:
        desk.happen(head, Start(attempt, ask.details, ask.step_minutes))
    elif ask.step_minutes is not None:
        # It keeps its details, and its step begins anew.
        desk.happen(head, Progress(attempt, None, ask.step_minutes))
    return _described(desk, head, with_document=True)


def _describe(desk: Desk, number: int, ask: Describe) -> Answer:
    if ask.job is None:
        found = desk.pending(number)
        return _described(desk, found[0], with_document=ask.with_document) if found else Described(None)
    standing = desk.find(number, ask.job)
    if standing is None or ask.attempt not in {None, standing.execution.attempt}:
        return _unknown(ask.thing, ask.job)
    if standing.execution.status.ended or not standing.offered:
        return Refused(Refusal.ENDED, f"The job {ask.job} has ended for this device.")
    return _described(desk, standing, with_document=ask.with_document)


def _update(desk: Desk, number: int, ask: Update) -> Answer:
    standing = desk.find(number, ask.job)
    if standing is None:
        return _unknown(ask.thing, ask.job)
    execution = standing.execution
    attempt = execution.attempt if ask.attempt is None else ask.attempt
    try:
        if not (execution.status.ended or standing.offered):
            raise InvalidTransition(f"The job {ask.job} was cancelled.", status=execution.status)
        if not execution.status.ended and ask.expected_version not in {None, execution.version}:
            return Refused(
                Refusal.VERSION_MISMATCH,
                f"The execution has version {execution.version}, not {ask.expected_version}.",
                execution,
            )
        after = desk.happen(standing, _event_for(ask, execution.status)(attempt))
    except InvalidTransition as error:
        return Refused(Refusal.INVALID_STATE, error.message, execution)
    document = desk.lasting(desk.connection, standing.job_number).document if ask.with_document else None
    return Updated(after if ask.with_state else None, document)


def _event_for(ask: Update, status: ExecutionStatus) -> Callable[[int], Event]:
    kind = _ENDS.get(ask.status) or (Start if status is ExecutionStatus.QUEUED else Progress)
    return lambda attempt: kind(attempt, ask.details, ask.step_minutes)


def _described(desk: Desk, standing: Standing, *, with_document: bool) -> Described:
    document = desk.lasting(desk.connection, standing.job_number).document if with_document else None
    return Described(_summary(standing), document)


def _summary(standing: Standing) -> Summary:
    return Summary(standing.job, standing.execution)


def _unknown(thing: ThingName, job: JobId) -> Refused:
    return Refused(Refusal.NOT_FOUND, f"The device {thing} was not given a job {job}.")
