"""What can be said about jobs and devices, and what is refused at the door."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.model.device import FactsQuery, GroupName, ThingName, check_facts
from instar.model.job import (
    AbortRule,
    ConstantRate,
    Counting,
    ExponentialRate,
    FailureKind,
    JobDocument,
    JobId,
    JobSettings,
    RetryRule,
    Schedule,
    StatusDetails,
    Window,
)

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.mark.parametrize("text", ["a", "upparat_1", "A-z_09", "x" * 64])
def test_what_can_name_a_job(text: str) -> None:
    assert JobId(text) == text


@pytest.mark.parametrize("text", ["", "$next", "a b", "a/b", "x" * 65, "é", "a\n", "+", "#"])
def test_what_cannot_name_a_job(text: str) -> None:
    with pytest.raises(ValueError, match="cannot name a job"):
        JobId(text)


@pytest.mark.parametrize("text", ["", "a/b", "+", "#", "x" * 129, "a\0", "tür"])
def test_what_would_be_more_than_a_level_of_a_topic_names_no_device_and_no_group(text: str) -> None:
    with pytest.raises(ValueError, match="cannot name a device"):
        ThingName(text)
    with pytest.raises(ValueError, match="cannot name a group"):
        GroupName(text)
    assert ThingName("x" * 128) == "x" * 128
    assert ThingName("urn:dev:1") == "urn:dev:1"


def test_a_document_is_a_json_object_kept_as_written() -> None:
    text = '{ "file": "x",  "n": 1.50 }'
    assert JobDocument(text).text == text
    assert JobDocument(text).value == {"file": "x", "n": 1.5}
    assert JobDocument.of({"ü": 1}).text == '{"ü":1}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        '{"a": "\ud800"}',
        '{"a": NaN}',
        '{"a": Infinity}',
        "{",
        "[" * 5_000,
        '{"a":' * 33 + "1" + "}" * 33,
    ],
)
def test_what_is_no_document(text: str) -> None:
    with pytest.raises(ValueError, match="document"):
        JobDocument(text)


def test_a_document_has_a_length_and_a_depth() -> None:
    filler = json.dumps({"a": "x" * (32_768 - 9)})
    assert len(filler) == 32_768
    assert JobDocument(filler)
    with pytest.raises(ValueError, match="32,768"):
        JobDocument(filler + " ")
    assert JobDocument('{"a":' * 32 + "1" + "}" * 32)


def test_status_details_are_few_short_and_plain() -> None:
    assert StatusDetails({f"k{n}": "v" for n in range(10)})
    assert StatusDetails({"k": "x" * 1024})
    for bad in (
        {"k": "\ud800"},
        {f"k{n}": "v" for n in range(11)},
        {"": "v"},
        {"k": ""},
        {"k": "x" * 1025},
        {"k": "a\nb"},
        {"k k": "v"},
    ):
        with pytest.raises(ValueError, match="detail"):
            StatusDetails(bad)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConstantRate(0),
        lambda: ConstantRate(1_001),
        lambda: ExponentialRate(0, 2, 1, Counting.NOTIFIED),
        lambda: ExponentialRate(1, 1.05, 1, Counting.NOTIFIED),
        lambda: ExponentialRate(1, 5.5, 1, Counting.NOTIFIED),
        lambda: ExponentialRate(1, 2, 0, Counting.NOTIFIED),
        lambda: ExponentialRate(1, 2, 1, Counting.NOTIFIED, 1_001),
        lambda: AbortRule(FailureKind.ALL, 0, 1),
        lambda: AbortRule(FailureKind.ALL, 101, 1),
        lambda: AbortRule(FailureKind.ALL, 5, 0),
        lambda: RetryRule(FailureKind.REJECTED, 1),
        lambda: RetryRule(FailureKind.ALL, 0),
        lambda: RetryRule(FailureKind.ALL, 11),
        lambda: Window("0 2 * *", 10),
        lambda: Window("0 0 2 * * *", 10),
        lambda: Window("61 2 * * *", 10),
        lambda: Window("0 2 * * *", 0),
        lambda: Window("0 2 * * *", 1_431),
        lambda: Schedule(start=NOW, end=NOW),
        lambda: Schedule(start=NOW.replace(tzinfo=None)),
        lambda: JobSettings(description="x" * 2_029),
        lambda: JobSettings(description="a\0b"),
        lambda: JobSettings(in_progress_minutes=0),
        lambda: JobSettings(in_progress_minutes=10_081),
        lambda: JobSettings(retries=(RetryRule(FailureKind.FAILED, 6), RetryRule(FailureKind.TIMED_OUT, 5))),
        lambda: JobSettings(retries=(RetryRule(FailureKind.FAILED, 1),) * 3),
    ],
)
def test_settings_have_limits(make: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        make()


def test_the_extremes_of_the_limits_are_settings() -> None:
    assert ConstantRate(1_000)
    assert ExponentialRate(1_000, 5, 1, Counting.SUCCEEDED)
    assert AbortRule(FailureKind.ALL, 100, 1)
    assert Window("*/5 0-3 * * MON-FRI", 1_430)
    assert JobSettings(in_progress_minutes=10_080, retries=(RetryRule(FailureKind.ALL, 10),))


@pytest.mark.parametrize(
    ("query", "facts", "holds"),
    [
        ("model=rpi4", {"model": "rpi4"}, True),
        ("model=rpi4", {"model": "rpi5"}, False),
        ("model=rpi4", {}, False),
        ("model=rpi4|rpi5 region=eu", {"model": "rpi5", "region": "eu"}, True),
        ("model=rpi4|rpi5 region=eu", {"model": "rpi5", "region": "us"}, False),
        ("region!=eu", {"region": "us"}, True),
        ("region!=eu", {}, True),
        ("region!=eu|us", {"region": "us"}, False),
        ("camera", {"camera": "no"}, True),
        ("camera", {}, False),
    ],
)
def test_a_question_about_facts(query: str, facts: dict[str, str], holds: bool) -> None:
    assert FactsQuery.parse(query).holds(facts) is holds


names = st.text("abcXYZ019._-", min_size=1, max_size=8)
values = st.lists(st.text("abc=:/ü", min_size=1, max_size=5).filter(lambda v: "|" not in v), min_size=1, max_size=3)


@given(st.lists(st.tuples(names, st.sampled_from(["=", "!="]), values), min_size=1, max_size=5))
def test_a_question_is_read_as_it_is_written(terms: list[tuple[str, str, list[str]]]) -> None:
    query = FactsQuery.parse(" ".join(f"{name}{operator}{'|'.join(values)}" for name, operator, values in terms))
    assert FactsQuery.parse(str(query)) == query


@pytest.mark.parametrize("text", ["", "=x", "a=", "a=|", "a==|b c=", "a b= c", "x " * 17])
def test_what_is_no_question(text: str) -> None:
    with pytest.raises(ValueError, match="question"):
        FactsQuery.parse(text)


def test_facts_are_few_short_and_plain() -> None:
    assert check_facts({"os": "linux"}) == {"os": "linux"}
    for bad in ({f"f{n}": "v" for n in range(65)}, {"a b": "v"}, {"a": ""}, {"a": "x" * 257}, {"a": "b\n"}):
        with pytest.raises(ValueError, match="fact"):
            check_facts(bad)
