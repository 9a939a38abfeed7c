"""What devices send, as questions to the fleet, or the code of what is wrong with it. Field by field, nothing trusted.

The traps of the protocol are marked with the number that they have in its notes: an empty payload is ``{}`` (3), a
version may come as text (4), and whatever is answered bears the token of the question (5).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from instar.compat.awsiot.topics import NEXT, Operation, Request
from instar.model.device import ThingName
from instar.model.job import ExecutionStatus, JobId, StatusDetails, check_minutes
from instar.policy.jobs import NO_STEP_TIMEOUT
from instar.server.fleet.asks import Ask, Describe, GetPending, StartNext, Update

__all__ = ["MAX_PAYLOAD", "Code", "Rejection", "Translated", "translate"]

MAX_PAYLOAD: Final = 128 * 1024
"""Bytes: what AWS takes. Anything longer is refused before it is looked at."""

# Characters of a token, which we hold and give back; that of the SDKs is a UUID.
_MAX_TOKEN: Final = 128
# Digits of a number that came as text: no version or attempt has more.
_MAX_DIGITS: Final = 10


class Code(StrEnum):
    """Why something is rejected, in the words of the protocol."""

    INVALID_TOPIC = "InvalidTopic"
    INVALID_JSON = "InvalidJson"
    INVALID_REQUEST = "InvalidRequest"
    INVALID_STATE_TRANSITION = "InvalidStateTransition"
    RESOURCE_NOT_FOUND = "ResourceNotFound"
    VERSION_MISMATCH = "VersionMismatch"
    INTERNAL_ERROR = "InternalError"
    REQUEST_THROTTLED = "RequestThrottled"
    TERMINAL_STATE_REACHED = "TerminalStateReached"


@dataclass(frozen=True, slots=True)
class Rejection:
    """What is wrong with a request."""

    code: Code
    message: str


@dataclass(frozen=True, slots=True)
class Translated:
    """A request as a question to the fleet, or what is wrong with it; and the token that its answer bears."""

    ask: Ask | Rejection
    token: str | None = None


class _WrongError(Exception):
    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


def translate(request: Request, payload: bytes) -> Translated:
    """Translate what a device sent. Never raises, whatever that is."""
    token: str | None = None
    try:
        fields = _parse(payload)
        token = _token(fields)
        return Translated(_ask(request, fields), token)
    except _WrongError as error:
        return Translated(Rejection(error.code, str(error)), token)


def _parse(payload: bytes) -> Mapping[str, Any]:
    if len(payload) > MAX_PAYLOAD:
        raise _WrongError(Code.INVALID_REQUEST, f"A payload has at most {MAX_PAYLOAD:,} bytes.")
    # Trap 3.
    if not payload:
        return {}
    try:
        fields = json.loads(payload.decode("utf-8"), parse_constant=_no_constant)
    # A number of thousands of digits is a ValueError, depth without end a RecursionError.
    except (ValueError, RecursionError):
        raise _WrongError(Code.INVALID_JSON, "The payload is not JSON in UTF-8.") from None
    if not isinstance(fields, dict):
        raise _WrongError(Code.INVALID_JSON, "The payload is not a JSON object.")
    return fields


def _ask(request: Request, fields: Mapping[str, Any]) -> Ask:
    try:
        thing = ThingName(request.thing)
        job = JobId(request.job) if request.job not in {"", NEXT} else None
    except ValueError as error:
        raise _WrongError(Code.INVALID_TOPIC, f"{error}.") from None
    try:
        match request.operation:
            case Operation.GET_PENDING:
                return GetPending(thing)
            case Operation.START_NEXT:
                return StartNext(thing, _details(fields), _step_minutes(fields))
            case Operation.DESCRIBE:
                return Describe(
                    thing,
                    job,
                    _number(fields, "executionNumber"),
                    with_document=_flag(fields, "includeJobDocument", default=True),
                )
            case Operation.UPDATE:
                return _update(thing, job, fields)
    except ValueError as error:
        raise _WrongError(Code.INVALID_REQUEST, f"{error}.") from None


def _update(thing: ThingName, job: JobId | None, fields: Mapping[str, Any]) -> Update:
    if job is None:
        raise _WrongError(Code.INVALID_TOPIC, "An update names its job.")
    status = fields.get("status")
    if not isinstance(status, str) or status not in ExecutionStatus.__members__:
        msg = "'status' is IN_PROGRESS, SUCCEEDED, FAILED or REJECTED"
        raise ValueError(msg)
    return Update(
        thing,
        job,
        ExecutionStatus(status),
        details=_details(fields),
        expected_version=_number(fields, "expectedVersion"),
        attempt=_number(fields, "executionNumber"),
        step_minutes=_step_minutes(fields),
        with_state=_flag(fields, "includeJobExecutionState", default=False),
        with_document=_flag(fields, "includeJobDocument", default=False),
    )


def _token(fields: Mapping[str, Any]) -> str | None:
    token = fields.get("clientToken")
    if token is None:
        return None
    if not isinstance(token, str) or len(token) > _MAX_TOKEN:
        raise _WrongError(Code.INVALID_REQUEST, f"'clientToken' is text of at most {_MAX_TOKEN} characters.")
    return token


def _details(fields: Mapping[str, Any]) -> StatusDetails | None:
    details = fields.get("statusDetails")
    if details is None:
        return None
    if not isinstance(details, dict) or not all(isinstance(value, str) for value in details.values()):
        msg = "'statusDetails' is an object of texts"
        raise ValueError(msg)
    return StatusDetails(details)


def _step_minutes(fields: Mapping[str, Any]) -> int | None:
    minutes = fields.get("stepTimeoutInMinutes")
    if minutes is None:
        return None
    if not isinstance(minutes, int) or isinstance(minutes, bool):
        msg = "'stepTimeoutInMinutes' is a whole number"
        raise ValueError(msg)  # noqa: TRY004  # all that is wrong with a request is a ValueError here
    return minutes if minutes == NO_STEP_TIMEOUT else check_minutes(minutes)


def _number(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    # Trap 4.
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        msg = f"{name!r} is a whole number"
        raise ValueError(msg)  # noqa: TRY004  # all that is wrong with a request is a ValueError here
    return value


def _flag(fields: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        msg = f"{name!r} is true or false"
        raise ValueError(msg)  # noqa: TRY004  # all that is wrong with a request is a ValueError here
    return value


def _no_constant(name: str) -> object:
    msg = f"{name} is no JSON"
    raise ValueError(msg)
