"""Who may come in: tokens of operators and of devices. A secret is given out once; only its digest is kept."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection

from instar.errors import Misconfigured, NotFound, Untrusted
from instar.model.device import ThingName, check_facts
from instar.server.fleet.service import Fleet
from instar.server.store import access
from instar.server.store.database import Store
from instar.system.clock import Clock

__all__ = ["Entry", "Scope"]

# Bytes of a secret: nobody guesses 256 bits.
_SECRET: Final = 32
# Characters of a token's name, as the table has them.
_MAX_NAME: Final = 128


class Scope(StrEnum):
    """What a token lets its bearer do."""

    READ = "read"
    WRITE = "write"
    APPROVE = "approve"
    ENROLL = "enroll"
    DEVICE = "device"


class Entry:
    """The tokens of one fleet.

    Args:
        store: the database.
        clock: what time it is.
        fleet: where devices are taken in.
        draw: gives a new secret; by default 256 random bits.

    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        fleet: Fleet,
        *,
        draw: Callable[[], str] = lambda: secrets.token_urlsafe(_SECRET),
    ) -> None:
        self._store = store
        self._clock = clock
        self._fleet = fleet
        self._draw = draw

    def issue(
        self,
        name: str,
        scopes: Collection[Scope],
        *,
        actor: str,
        expires: datetime | None = None,
        uses: int | None = None,
    ) -> str:
        """Make a token, and give its secret, which nobody can be told again.

        Args:
            name: whose it is; it stands in the log as the actor.
            scopes: what it lets its bearer do; not ``DEVICE``, which devices get when they enrol.
            actor: who makes it.
            expires: when it is worth nothing any more.
            uses: how many devices it may enrol; None for any number.

        Raises:
            Misconfigured: a name that is too long or empty, scopes that make no token, no uses.

        """
        if not 1 <= len(name) <= _MAX_NAME:
            raise Misconfigured(f"A token's name has 1 to {_MAX_NAME} characters.")
        if not scopes or Scope.DEVICE in scopes:
            raise Misconfigured("A token needs scopes, and a device's own is made when it enrols.")
        if uses is not None and (uses < 1 or set(scopes) != {Scope.ENROLL}):
            raise Misconfigured("Only tokens that enrol are counted, and at least one use is left of them.")

        def work(connection: Connection) -> str:
            now, secret = self._clock.now(), self._draw()
            access.add_token(connection, secret=secret, name=name, scopes=scopes, now=now, expires=expires, uses=uses)
            access.note(connection, now, actor, "token.issue", name, {"scopes": sorted(scopes), "uses": uses})
            return secret

        return self._store.write(work)

    def bearer(self, secret: str) -> access.Token | None:
        """Give what the bearer of a secret may do; None where that is nothing, or nothing any more."""
        return self._store.read(lambda connection: access.find_token(connection, secret, self._clock.now()))

    def enroll(self, secret: str, name: ThingName, facts: Mapping[str, str]) -> str:
        """Take in a device that shows a token for that; give the secret of its own.

        Raises:
            Untrusted: the token is not one, or does not enrol.
            Conflict: the device is there already. The token is not used up by that.
            Misconfigured: the facts are too many or too long.

        """
        try:
            check_facts(facts)
        except ValueError as error:
            raise Misconfigured(f"The facts cannot be taken: {error}.") from error

        def work(connection: Connection) -> str:
            now, own = self._clock.now(), self._draw()
            token = access.find_token(connection, secret, now)
            if token is None or Scope.ENROLL not in token.scopes:
                raise Untrusted("This token enrols no device.", hint="Ask the operator for another.")
            # Two devices may show the last use of a token at once.
            if token.uses_left is not None and not access.spend(connection, token, now):
                raise Untrusted("This token was used up.", hint="Ask the operator for another.")
            number = self._fleet.enroll_within(connection, name, facts, actor=token.name)
            access.add_token(connection, secret=own, name=name, scopes=[Scope.DEVICE], now=now, device=number)
            return own

        return self._store.write(work)

    def revoke(self, number: int, *, actor: str) -> None:
        """Let a token be worth nothing from now on.

        Raises:
            NotFound: there is no such token, or it is worth nothing already.

        """

        def work(connection: Connection) -> None:
            now = self._clock.now()
            if not access.revoke(connection, now, number=number):
                raise NotFound(f"There is no token {number} to revoke.")
            access.note(connection, now, actor, "token.revoke", str(number), {})

        self._store.write(work)

    def list_tokens(self) -> list[access.Token]:
        """Give the tokens that are worth something and are no single device's."""
        return self._store.read(lambda connection: access.list_tokens(connection, self._clock.now()))
