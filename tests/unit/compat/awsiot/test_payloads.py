"""Topics and payloads: what is read, what is refused with which code, and what is written."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.compat.awsiot.answers import answer_message, event_message, notification_messages, rejection_message
from instar.compat.awsiot.requests import MAX_PAYLOAD, Code, Rejection, Translated, translate
from instar.compat.awsiot.topics import REQUESTS, Operation, Request, parse_topic
from instar.model.device import ThingName
from instar.model.job import ExecutionStatus, JobDocument, JobId, StatusDetails
from instar.policy.jobs import Execution, Start, Succeed, advance
from instar.server.fleet import Notification
from instar.server.fleet.asks import (
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
from instar.server.store.outbox import JobEvent

NOW = datetime(2026, 11, 21, 12, 0, 0, 999_000, tzinfo=UTC)
EPOCH = 1_795_262_400
THING, JOB = ThingName("d1"), JobId("job1")


def request(rest: str, thing: str = "d1") -> Request:
    found = parse_topic(f"$aws/things/{thing}/jobs/{rest}")
    assert found is not None
    return found


def ask(rest: str, payload: Any = b"", thing: str = "d1") -> Any:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return translate(request(rest, thing), data).ask


def code(rest: str, payload: Any = b"", thing: str = "d1") -> Code:
    found = ask(rest, payload, thing)
    assert isinstance(found, Rejection)
    assert found.message.endswith(".")
    return found.code


def test_topics_that_devices_publish_to_and_no_others_are_read() -> None:
    assert request("get") == Request("$aws/things/d1/jobs/get", Operation.GET_PENDING, "d1")
    assert request("start-next").operation is Operation.START_NEXT
    assert request("$next/get").job == "$next"
    assert request("job1/update") == Request("$aws/things/d1/jobs/job1/update", Operation.UPDATE, "d1", "job1")
    # A job may be called like an operation.
    assert request("get/get") == Request("$aws/things/d1/jobs/get/get", Operation.DESCRIBE, "d1", "get")
    for other in ("get/accepted", "job1/get/accepted", "notify", "notify-next", "", "job1", "a/b/get", "job1/delete"):
        assert parse_topic(f"$aws/things/d1/jobs/{other}") is None
    for other in ("$aws/things/d1/shadow/get", "aws/things/d1/jobs/get", "$aws/other/d1/jobs/get", ""):
        assert parse_topic(other) is None


def test_what_we_listen_to_never_holds_our_own_answers() -> None:
    for found in (request("get"), request("start-next"), request("job1/get"), request("job1/update")):
        for topic in (found.accepted, found.rejected):
            assert not any(_matches(pattern, topic) for pattern in REQUESTS)
        assert sum(_matches(pattern, found.topic) for pattern in REQUESTS) == 1


def _matches(pattern: str, topic: str) -> bool:
    levels = list(zip(pattern.split("/"), topic.split("/"), strict=False))
    return pattern.count("/") == topic.count("/") and all(a in {"+", b} for a, b in levels)


def test_requests_become_questions() -> None:
    assert ask("get") == GetPending(THING)
    assert ask("start-next", {"statusDetails": {"a": "b"}, "stepTimeoutInMinutes": -1}) == StartNext(
        THING, StatusDetails({"a": "b"}), -1
    )
    assert ask("$next/get") == Describe(THING)
    assert ask("job1/get", {"includeJobDocument": False, "executionNumber": 2}) == Describe(THING, JOB, 2, False)
    assert ask("job1/update", {"status": "IN_PROGRESS"}) == Update(THING, JOB, ExecutionStatus.IN_PROGRESS)
    # Trap 4: as text. What is null is as if it were not there, and what is unknown too.
    everything = {
        "status": "SUCCEEDED",
        "statusDetails": {"a": "b"},
        "expectedVersion": "3",
        "executionNumber": 1,
        "includeJobExecutionState": True,
        "includeJobDocument": True,
        "stepTimeoutInMinutes": None,
        "somethingNew": {},
    }
    assert ask("job1/update", everything) == Update(
        THING, JOB, ExecutionStatus.SUCCEEDED, StatusDetails({"a": "b"}), 3, 1, None, True, True
    )


def test_the_token_of_a_question_is_on_every_answer() -> None:
    for payload in (b'{"clientToken": "t"}', b'{"clientToken": "t", "status": 1}'):
        found = translate(request("job1/update"), payload)
        assert found.token == "t"
        assert isinstance(found.ask, Rejection)
        _, body = rejection_message(request("job1/update"), found.ask, found.token, NOW)
        assert json.loads(body)["clientToken"] == "t"
    topic, body = answer_message(request("get"), Pending(), "t", NOW)
    assert (topic, json.loads(body)) == (
        "$aws/things/d1/jobs/get/accepted",
        {"inProgressJobs": [], "queuedJobs": [], "timestamp": EPOCH, "clientToken": "t"},
    )


@pytest.mark.parametrize(
    "payload", [b"{", b"[]", b"1", b'"a"', b"\xff", b"[" * 100_000, b'{"a":' * 20_000, b'{"a": NaN}', b"9" * 100_000]
)
def test_what_is_no_json_object_is_said_to_be_none(payload: bytes) -> None:
    assert code("get", payload) is Code.INVALID_JSON


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"status": "DONE"},
        {"status": None},
        {"status": ["SUCCEEDED"]},
        {"status": "QUEUED"},
        {"status": "TIMED_OUT"},
        {"status": "CANCELED"},
        {"status": "succeeded"},
        {"status": "FAILED", "statusDetails": []},
        {"status": "FAILED", "statusDetails": {"a": 1}},
        {"status": "FAILED", "statusDetails": {"a": ""}},
        {"status": "FAILED", "statusDetails": {"a": "x" * 1025}},
        {"status": "FAILED", "statusDetails": {"a b": "x"}},
        {"status": "FAILED", "statusDetails": {"a": "\ud800"}},
        {"status": "FAILED", "statusDetails": {f"k{n}": "x" for n in range(11)}},
        {"status": "FAILED", "expectedVersion": 1.5},
        {"status": "FAILED", "expectedVersion": True},
        {"status": "FAILED", "expectedVersion": "one"},
        {"status": "FAILED", "expectedVersion": "٣"},
        {"status": "FAILED", "expectedVersion": "1" * 11},
        {"status": "FAILED", "executionNumber": []},
        {"status": "FAILED", "includeJobDocument": "yes"},
        {"status": "FAILED", "includeJobExecutionState": 1},
        {"status": "FAILED", "stepTimeoutInMinutes": 0},
        {"status": "FAILED", "stepTimeoutInMinutes": -2},
        {"status": "FAILED", "stepTimeoutInMinutes": 10_081},
        {"status": "FAILED", "stepTimeoutInMinutes": "5"},
        {"status": "FAILED", "clientToken": 5},
        {"status": "FAILED", "clientToken": "x" * 129},
    ],
)
def test_what_is_wrong_in_a_request_is_said_to_be_so(fields: dict[str, Any]) -> None:
    assert code("job1/update", fields) is Code.INVALID_REQUEST


def test_what_is_wrong_in_a_topic_is_said_to_be_so() -> None:
    assert code("get", thing="bad name") is Code.INVALID_TOPIC
    assert code("get", thing="x" * 129) is Code.INVALID_TOPIC
    assert code("bad id/get") is Code.INVALID_TOPIC
    assert code("/update", {"status": "FAILED"}) is Code.INVALID_TOPIC
    assert code("$next/update", {"status": "FAILED"}) is Code.INVALID_TOPIC


def test_what_is_too_long_is_refused_before_it_is_read() -> None:
    assert code("get", b" " * (MAX_PAYLOAD + 1)) is Code.INVALID_REQUEST
    assert ask("get", b"{}" + b" " * (MAX_PAYLOAD - 2)) == GetPending(THING)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
_FIELDS = st.sampled_from(
    [
        "status", "statusDetails", "expectedVersion", "executionNumber", "includeJobExecutionState",
        "includeJobDocument", "stepTimeoutInMinutes", "clientToken",
    ]
)  # fmt: skip


@given(
    st.sampled_from(["get", "start-next", "$next/get", "job1/get", "job1/update"]),
    st.one_of(st.binary(), st.dictionaries(_FIELDS, _JSON).map(lambda value: json.dumps(value).encode())),
)
def test_nothing_that_a_device_sends_is_more_than_an_answer(rest: str, payload: bytes) -> None:
    found = translate(request(rest), payload)
    assert isinstance(found, Translated)
    if isinstance(found.ask, Rejection):
        _, body = rejection_message(request(rest), found.ask, found.token, NOW)
        assert json.loads(body)["code"] == found.ask.code


def standing(*, started: bool = False, details: bool = False) -> Summary:
    execution = Execution.queued(NOW - timedelta(minutes=10))
    if started:
        said = StatusDetails({"state": "x"}) if details else None
        execution = advance(execution, Start(1, said), now=NOW - timedelta(minutes=1), timeout=timedelta(minutes=5))
    return Summary(JOB, execution)


def test_a_described_execution_has_the_fields_of_the_protocol() -> None:
    document = JobDocument('{"file": "x", "n": [1, 2]}')
    topic, body = answer_message(
        request("$next/get"), Described(standing(started=True, details=True), document), None, NOW
    )
    assert topic == "$aws/things/d1/jobs/$next/get/accepted"
    assert json.loads(body) == {
        "timestamp": EPOCH,
        "execution": {
            "jobId": "job1",
            "thingName": "d1",
            "jobDocument": {"file": "x", "n": [1, 2]},
            "status": "IN_PROGRESS",
            "statusDetails": {"state": "x"},
            "queuedAt": EPOCH - 600,
            "startedAt": EPOCH - 60,
            "lastUpdatedAt": EPOCH - 60,
            "versionNumber": 2,
            "executionNumber": 1,
            "approximateSecondsBeforeTimedOut": 240,
        },
    }
    _, bare = answer_message(request("$next/get"), Described(standing()), None, NOW)
    assert set(json.loads(bare)["execution"]) == {
        "jobId", "thingName", "status", "queuedAt", "lastUpdatedAt", "versionNumber", "executionNumber",
    }  # fmt: skip
    _, nothing = answer_message(request("start-next"), Described(None), None, NOW)
    assert json.loads(nothing) == {"timestamp": EPOCH}


def test_an_update_is_answered_with_as_much_as_was_asked_for() -> None:
    state = advance(standing(started=True).execution, Succeed(1), now=NOW)
    _, bare = answer_message(request("job1/update"), Updated(), None, NOW)
    assert json.loads(bare) == {"timestamp": EPOCH}
    _, full = answer_message(request("job1/update"), Updated(state, JobDocument("{}")), None, NOW)
    assert json.loads(full) == {
        "timestamp": EPOCH,
        "executionState": {"status": "SUCCEEDED", "statusDetails": {}, "versionNumber": 3},
        "jobDocument": {},
    }


@pytest.mark.parametrize(
    ("why", "expected"),
    [
        (Refusal.NOT_FOUND, "ResourceNotFound"),
        (Refusal.INVALID_STATE, "InvalidStateTransition"),
        (Refusal.VERSION_MISMATCH, "VersionMismatch"),
        (Refusal.ENDED, "TerminalStateReached"),
    ],
)
def test_a_refusal_has_its_code_and_the_state_where_that_helps(why: Refusal, expected: str) -> None:
    state = standing().execution if why in {Refusal.INVALID_STATE, Refusal.VERSION_MISMATCH} else None
    topic, body = answer_message(request("job1/update"), Refused(why, "No.", state), "t", NOW)
    said = json.loads(body)
    assert topic == "$aws/things/d1/jobs/job1/update/rejected"
    assert (said["code"], said["message"], said["clientToken"], said["timestamp"]) == (expected, "No.", "t", EPOCH)
    assert said.get("executionState") == (
        {"status": "QUEUED", "statusDetails": {}, "versionNumber": 1} if state else None
    )


def test_notifications_hold_at_most_ten_and_no_empty_list() -> None:
    many = Pending(in_progress=(standing(started=True),) * 3, queued=(standing(),) * 20)
    ((topic, body),) = notification_messages(Notification(THING, many, None, ()), NOW)
    assert topic == "$aws/things/d1/jobs/notify"
    listed = json.loads(body)["jobs"]
    assert (len(listed["IN_PROGRESS"]), len(listed["QUEUED"])) == (3, 7)
    ((_, none), (following, nothing)) = notification_messages(Notification(THING, Pending(), Described(None), ()), NOW)
    assert json.loads(none) == {"timestamp": EPOCH, "jobs": {}}
    assert following == "$aws/things/d1/jobs/notify-next"
    assert json.loads(nothing) == {"timestamp": EPOCH}


def test_events_are_told_on_their_topics_and_twice_with_the_same_id() -> None:
    topic, body = event_message(JobEvent(1, NOW, "job1", "", "completed"))
    assert topic == "$aws/events/job/job1/completed"
    assert json.loads(body)["operation"] == "completed"
    topic, again = event_message(JobEvent(2, NOW, "job1", "d1", "timed_out"))
    assert topic == "$aws/events/jobExecution/job1/timed_out"
    assert json.loads(again)["status"] == "TIMED_OUT"
    assert event_message(JobEvent(2, NOW, "job1", "d1", "timed_out")) == (topic, again)
