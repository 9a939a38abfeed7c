"""Tokens: what they let in, for how long and how often; on both databases."""

import itertools
from datetime import timedelta

import pytest
from sqlalchemy import select

from instar.errors import Conflict, Misconfigured, NotFound, Untrusted
from instar.model.device import ThingName
from instar.server.fleet.entry import Entry, Scope
from instar.server.store.database import Store
from instar.server.store.schema import audit, tokens
from tests.support.fleets import Played


@pytest.fixture
def played(store: Store) -> Played:
    return Played(store)


@pytest.fixture
def entry(played: Played) -> Entry:
    return Entry(played.store, played.clock, played.fleet)


def test_a_secret_is_kept_nowhere_and_lets_its_bearer_do_what_it_says(played: Played, entry: Entry) -> None:
    secret = entry.issue("alice", {Scope.READ, Scope.WRITE}, actor="root")
    found = entry.bearer(secret)
    assert found is not None
    assert (found.name, found.scopes, found.device) == ("alice", {"read", "write"}, None)
    assert entry.bearer(secret + "x") is None
    assert len(secret) > 40
    rows = played.store.read(lambda c: [*c.execute(select(tokens)).all(), *c.execute(select(audit)).all()])
    assert secret not in str(rows)


def test_a_token_ends_by_itself_or_when_it_is_revoked(played: Played, entry: Entry) -> None:
    soon = entry.issue("soon", {Scope.READ}, actor="root", expires=played.now + timedelta(hours=1))
    other = entry.issue("other", {Scope.READ}, actor="root")
    assert [token.name for token in entry.list_tokens()] == ["soon", "other"]
    played.clock.advance(timedelta(hours=1))
    assert entry.bearer(soon) is None
    (left,) = entry.list_tokens()
    entry.revoke(left.number, actor="root")
    assert entry.bearer(other) is None
    with pytest.raises(NotFound):
        entry.revoke(left.number, actor="root")
    assert [each.action for each in played.fleet.audit()] == ["token.revoke", "token.issue", "token.issue"]


def test_a_token_enrols_as_many_devices_as_it_says(played: Played, entry: Entry) -> None:
    secret = entry.issue("line 1", {Scope.ENROLL}, actor="root", uses=2)
    own = entry.enroll(secret, ThingName("d0"), {"os": "linux"})
    # That it was there already uses nothing up.
    with pytest.raises(Conflict):
        entry.enroll(secret, ThingName("d0"), {})
    entry.enroll(secret, ThingName("d1"), {})
    with pytest.raises(Untrusted):
        entry.enroll(secret, ThingName("d2"), {})
    device = entry.bearer(own)
    assert device is not None
    assert (device.name, device.scopes, device.device) == ("d0", {"device"}, 1)
    assert entry.list_tokens() == []
    played.job("one", things=["d0", "d1"])
    assert played.counters("one").queued == 2
    played.fleet.retire(ThingName("d0"), actor="root")
    assert entry.bearer(own) is None


def test_only_a_token_for_it_enrols(entry: Entry) -> None:
    for secret in ("made up", entry.issue("alice", {Scope.READ, Scope.WRITE}, actor="root")):
        with pytest.raises(Untrusted):
            entry.enroll(secret, ThingName("d0"), {})
    with pytest.raises(Misconfigured):
        entry.enroll(entry.issue("line", {Scope.ENROLL}, actor="root"), ThingName("d0"), {"a": ""})


@pytest.mark.parametrize(
    ("name", "scopes", "uses"),
    [
        ("", {Scope.READ}, None),
        ("x" * 129, {Scope.READ}, None),
        ("a", set(), None),
        ("a", {Scope.DEVICE}, None),
        ("a", {Scope.ENROLL}, 0),
        ("a", {Scope.READ}, 1),
    ],
)
def test_what_makes_no_token(entry: Entry, name: str, scopes: set[Scope], uses: int | None) -> None:
    with pytest.raises(Misconfigured):
        entry.issue(name, scopes, actor="root", uses=uses)


def test_two_devices_cannot_share_a_secret(played: Played) -> None:
    drawn = itertools.chain(["one", "same", "same"])
    entry = Entry(played.store, played.clock, played.fleet, draw=lambda: next(drawn))
    secret = entry.issue("line", {Scope.ENROLL}, actor="root")
    entry.enroll(secret, ThingName("d0"), {})
    with pytest.raises(Conflict):
        entry.enroll(secret, ThingName("d1"), {})
