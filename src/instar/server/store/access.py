"""Who may do what, and who did: tokens, of which only digests are kept, and the log of every change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, or_, select, update

from instar.server.store.schema import audit, tokens
from instar.server.store.values import milliseconds, moment

__all__ = ["AuditEntry", "Token", "add_token", "find_token", "list_audit", "list_tokens", "note", "revoke", "spend"]


@dataclass(frozen=True, slots=True)
class Token:
    """What its bearer may do. ``device`` is the one that it speaks for, where it speaks for one."""

    number: int
    name: str
    scopes: frozenset[str]
    device: int | None
    expires: datetime | None
    uses_left: int | None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change: who, what, to what."""

    at: datetime
    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]


def add_token(  # noqa: PLR0913  # a row of many columns, all by name
    connection: Connection,
    *,
    secret: str,
    name: str,
    scopes: Iterable[str],
    now: datetime,
    expires: datetime | None = None,
    device: int | None = None,
    uses: int | None = None,
) -> int:
    """Let whoever knows ``secret`` do what the scopes say; give the token's number."""
    number: int = connection.execute(
        insert(tokens)
        .values(
            digest=_digest(secret),
            name=name,
            scopes=json.dumps(sorted(scopes)),
            device_id=device,
            created_at=milliseconds(now),
            expires_at=None if expires is None else milliseconds(expires),
            uses_left=uses,
        )
        .returning(tokens.c.id)
    ).scalar_one()
    return number


def find_token(connection: Connection, secret: str, now: datetime) -> Token | None:
    """Give what the bearer of ``secret`` may do; None where that is nothing, or nothing any more."""
    # Found by its digest: how long that takes says nothing about a secret.
    row = connection.execute(select(tokens).where(tokens.c.digest == _digest(secret), *_valid(now))).first()
    return None if row is None else _token(row)


def spend(connection: Connection, token: Token, now: datetime) -> bool:
    """Use a token that can be used so many times; False where it was used up meanwhile."""
    left = update(tokens).where(tokens.c.id == token.number, *_valid(now))
    return connection.execute(left.values(uses_left=tokens.c.uses_left - 1)).rowcount == 1


def revoke(connection: Connection, now: datetime, *, number: int | None = None, device: int | None = None) -> int:
    """Let a token, or all of a device, be worth nothing from now on; give how many that were."""
    which = tokens.c.id == number if number is not None else tokens.c.device_id == device
    return connection.execute(
        update(tokens).where(which, tokens.c.revoked_at.is_(None)).values(revoked_at=milliseconds(now))
    ).rowcount


def list_tokens(connection: Connection, now: datetime) -> list[Token]:
    """Give the tokens that are worth something and speak for no single device."""
    query = select(tokens).where(tokens.c.device_id.is_(None), *_valid(now)).order_by(tokens.c.id)
    return [_token(row) for row in connection.execute(query)]


def note(
    connection: Connection, now: datetime, actor: str, action: str, subject: str, detail: Mapping[str, Any]
) -> None:
    """Write down a change, in the transaction that makes it."""
    connection.execute(
        insert(audit).values(
            at=milliseconds(now),
            actor=actor,
            action=action,
            subject=subject,
            detail=json.dumps(dict(detail), ensure_ascii=False, default=str),
        )
    )


def list_audit(connection: Connection, *, before: int | None = None, limit: int = 100) -> list[AuditEntry]:
    """Give the changes, the newest first."""
    query = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(audit.c.id < before)
    return [
        AuditEntry(moment(row.at), row.actor, row.action, row.subject, json.loads(row.detail))
        for row in connection.execute(query)
    ]


def _digest(secret: str) -> str:
    # A secret is 256 random bits: nothing to guess, so nothing to slow down.
    return hashlib.sha256(secret.encode()).hexdigest()


def _valid(now: datetime) -> tuple[Any, ...]:
    return (
        tokens.c.revoked_at.is_(None),
        or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > milliseconds(now)),
        or_(tokens.c.uses_left.is_(None), tokens.c.uses_left > 0),
    )


def _token(row: Any) -> Token:  # noqa: ANN401  # a row with the columns of the table
    return Token(
        number=row.id,
        name=row.name,
        scopes=frozenset(json.loads(row.scopes)),
        device=row.device_id,
        expires=None if row.expires_at is None else moment(row.expires_at),
        uses_left=row.uses_left,
    )
