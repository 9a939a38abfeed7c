"""The files of the state folder: what is written is read again, and nothing else is taken for it."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from instar.errors import Misconfigured
from instar.install import Confirmation, Layout, Phase, Record
from instar.install.books import Entry
from instar.install.journal import Journal, Step
from instar.install.state import State, Tree
from instar.testing.installs import make_record, release_of

ONE, TWO = (Tree(version, release_of(version)) for version in ("1.0", "2.0"))
STATE = State(
    Phase.PENDING, current=TWO, previous=ONE, starts=2, first_start=datetime(2026, 11, 21, tzinfo=UTC)
).with_failure(release_of("0.9"), "it fell over", datetime(2026, 11, 20, tzinfo=UTC))
RECORD = make_record(
    Layout.IN_PLACE,
    health=("bin/app", "--version"),
    deadline=60.5,
    confirmation=Confirmation.BY_HEALTH,
    device_id="d",
    facts={"site": "lab"},
)
JOURNAL = Journal(Step.SELECT, "1.0", "2.0", STATE, {"1.0": 11, "2.0": 12}, waits_for=7)
ENTRY = Entry(ONE, 77, confirmed=True)

FILES: dict[str, tuple[Any, Callable[[bytes], Any]]] = {
    "state": (STATE, State.from_json),
    "record": (RECORD, Record.from_json),
    "journal": (JOURNAL, Journal.from_json),
    "release": (ENTRY, lambda data: Entry.from_json("1.0", data)),
}
each = pytest.mark.parametrize("kind", FILES)


@each
def test_what_is_written_is_read_again(kind: str) -> None:
    value, read = FILES[kind]
    assert read(value.to_json()) == value


@each
def test_a_newer_format_is_refused_with_a_hint(kind: str) -> None:
    value, read = FILES[kind]
    newer = {**json.loads(value.to_json()), "format": f"instar-{kind}-2"}
    with pytest.raises(Misconfigured, match=r"newer instar.*Update instar"):
        read(json.dumps(newer).encode())


@each
@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe", b"null", b"[]", b"{}", b'{"format": "instar-other-1"}', b"[" * 100_000],
    ids=["empty", "binary", "null", "list", "object", "other format", "deep"],
)
def test_anything_else_is_no_such_file(kind: str, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        FILES[kind][1](data)


@each
def test_every_key_that_is_missing_or_of_another_kind_is_noticed_or_has_a_default(kind: str) -> None:
    value, read = FILES[kind]
    document = json.loads(value.to_json())
    for key in document:
        for wrong in ({"x": 1}, [[]], -1, float("inf"), "x"):
            try:
                read(json.dumps({**document, key: wrong}).encode())
            except ValueError:
                continue
        without = {k: v for k, v in document.items() if k != key}
        try:
            read(json.dumps(without).encode())
        except ValueError:
            continue
        assert kind == "record"


@pytest.mark.parametrize(
    "changes",
    [
        {"urls": ()},
        {"keep": ("**",)},
        {"keep": ("../x",)},
        {"health": ("/bin/sh",)},
        {"health": ("a\0b",)},
        {"health_timeout": 0},
        {"health_timeout": float("nan")},
        {"max_starts": 0},
        {"deadline": 0},
        {"deadline": float("inf")},
        {"confirmation": Confirmation.BY_HEALTH},
    ],
    ids=str,
)
def test_a_record_that_cannot_be_meant_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        replace(make_record(), **changes)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\\b", "c:", "x" * 256])
def test_a_tree_is_one_visible_folder(name: str) -> None:
    with pytest.raises(ValueError, match="name of a tree"):
        Tree(name, release_of("1.0"))


@pytest.mark.parametrize(
    "changes",
    [
        {"phase": Phase.EMPTY},
        {"current": None},
        {"previous": TWO},
        {"starts": -1},
        {"at_start": True},
    ],
    ids=str,
)
def test_a_state_that_contradicts_itself_is_refused(changes: dict[str, Any]) -> None:
    given: dict[str, Any] = {"phase": Phase.PENDING, "current": TWO, "previous": ONE, **changes}
    with pytest.raises(ValueError, match=r"cannot have|contradict"):
        State(**given)


@pytest.mark.parametrize("source", ["../../elsewhere", "/etc", "", 5, [], {}], ids=str)
def test_a_journal_leads_nowhere_but_to_a_tree(source: Any) -> None:
    document = json.loads(JOURNAL.to_json())
    with pytest.raises(ValueError, match=r"tree|malformed"):
        Journal.from_json(json.dumps({**document, "source": source}).encode())


def test_a_time_that_is_none_everywhere_on_earth_is_no_state() -> None:
    document = json.loads(STATE.to_json())
    with pytest.raises(ValueError, match="malformed"):
        State.from_json(json.dumps({**document, "first_start": "0001-01-01T00:00:00+12:00"}).encode())


def test_failures_are_bounded_in_number_and_length() -> None:
    state = State()
    for number in range(150):
        state = state.with_failure(release_of(f"1.{number}"), "x" * 100_000, datetime(2026, 1, 1, tzinfo=UTC))
    assert len(state.failed) == 100
    assert not state.has_failed(release_of("1.49"))
    assert state.has_failed(release_of("1.149"))
    assert len(state.to_json()) < 1 << 20
