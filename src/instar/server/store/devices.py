"""Devices, what they say about themselves, and their groups: statements, each in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, delete, exists, insert, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.dml import Insert

from instar.model.device import FactsQuery, GroupName, ThingName
from instar.server.store.schema import EVERYBODY, devices, facts, group_members, groups
from instar.server.store.values import milliseconds, moment

__all__ = [
    "Device",
    "add_device",
    "add_group",
    "add_members",
    "drop_group",
    "dynamic_groups",
    "facts_of",
    "group_id",
    "groups_of",
    "insert_new",
    "list_devices",
    "lock_devices",
    "lock_numbers",
    "mark_seen",
    "members_matching",
    "remove_members",
    "retire_device",
    "set_facts",
]

# Names or numbers in one statement: below what both databases take as bound values.
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Device:
    """A device that is enrolled, or was."""

    number: int
    name: ThingName
    enrolled: datetime
    seen: datetime | None
    retired: datetime | None


def insert_new(connection: Connection, table: Any) -> Insert:  # noqa: ANN401  # a table, whose type the dialects name differently
    """Begin an INSERT that leaves rows that are there already as they are, and counts those that were not."""
    insert_into = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return insert_into(table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)


def add_device(connection: Connection, name: ThingName, now: datetime) -> int | None:
    """Enrol a device that is not there, or was retired; give its number, None where it is there already."""
    at = milliseconds(now)
    found = connection.execute(select(devices.c.id, devices.c.retired_at).where(devices.c.name == name)).first()
    if found is None:
        number: int = connection.execute(
            insert(devices).values(name=name, enrolled_at=at).returning(devices.c.id)
        ).scalar_one()
    elif found.retired_at is None:
        return None
    else:
        number = found.id
        connection.execute(update(devices).where(devices.c.id == number).values(enrolled_at=at, retired_at=None))
    add_members(connection, group_id(connection, GroupName(EVERYBODY)) or 0, [number])
    return number


def retire_device(connection: Connection, number: int, now: datetime) -> None:
    """Let a device belong to no group and say nothing more; its history stays."""
    connection.execute(update(devices).where(devices.c.id == number).values(retired_at=milliseconds(now)))
    connection.execute(delete(group_members).where(group_members.c.device_id == number))
    connection.execute(delete(facts).where(facts.c.device_id == number))


def lock_devices(connection: Connection, names: Iterable[str]) -> dict[str, Device]:
    """Give the devices of these names that are not retired; nobody else touches them until the transaction ends."""
    wanted = sorted(set(names))
    found: list[Any] = []
    # One statement takes its locks in order of number; several would not, so one it is.
    query = (
        select(devices)
        .where(devices.c.name.in_(wanted), devices.c.retired_at.is_(None))
        .order_by(devices.c.id)
        .with_for_update(key_share=True)
    )
    if wanted:
        found.extend(connection.execute(query))
    return {row.name: _device(row) for row in found}


def lock_numbers(connection: Connection, numbers: Sequence[int]) -> dict[int, ThingName]:
    """Let nobody else touch the devices of these numbers until the transaction ends; give their names."""
    query = (
        select(devices.c.id, devices.c.name)
        .where(devices.c.id.in_(numbers))
        .order_by(devices.c.id)
        .with_for_update(key_share=True)
    )
    return {row.id: ThingName(row.name) for row in connection.execute(query)} if numbers else {}


def mark_seen(connection: Connection, numbers: Sequence[int], now: datetime) -> None:
    """Note that these devices said something."""
    if numbers:
        statement = update(devices).where(devices.c.id == bindparam("number")).values(seen_at=bindparam("at"))
        connection.execute(statement, [{"number": number, "at": milliseconds(now)} for number in numbers])


def list_devices(
    connection: Connection, *, group: int | None = None, after: str = "", limit: int = 100
) -> list[Device]:
    """Give devices in order of name, behind ``after``; with ``group`` only its members."""
    query = select(devices).where(devices.c.name > after, devices.c.retired_at.is_(None))
    if group is not None:
        query = query.where(
            exists().where(group_members.c.group_id == group, group_members.c.device_id == devices.c.id)
        )
    return [_device(row) for row in connection.execute(query.order_by(devices.c.name).limit(limit))]


def facts_of(connection: Connection, number: int) -> dict[str, str]:
    """Give what a device says about itself."""
    rows = connection.execute(select(facts.c.name, facts.c.value).where(facts.c.device_id == number))
    return {row.name: row.value for row in rows}


def set_facts(connection: Connection, number: int, stated: Mapping[str, str]) -> None:
    """Let the device say this about itself, and nothing else."""
    connection.execute(delete(facts).where(facts.c.device_id == number))
    if stated:
        rows = [{"device_id": number, "name": name, "value": value} for name, value in stated.items()]
        connection.execute(insert(facts), rows)


def group_id(connection: Connection, name: GroupName) -> int | None:
    """Give the number of a group, None where there is none."""
    return connection.execute(select(groups.c.id).where(groups.c.name == name)).scalar()


def add_group(connection: Connection, name: GroupName, query: FactsQuery | None) -> int:
    """Make a group; with ``query`` its members are all devices that it holds for.

    Raises:
        IntegrityError: there is one of that name.

    """
    number: int = connection.execute(
        insert(groups).values(name=name, query=str(query) if query else None).returning(groups.c.id)
    ).scalar_one()
    if query:
        meant = select(literal(number), devices.c.id).where(devices.c.retired_at.is_(None), members_matching(query))
        connection.execute(insert(group_members).from_select(["group_id", "device_id"], meant))
    return number


def drop_group(connection: Connection, number: int) -> None:
    """Forget a group. Its devices stay."""
    connection.execute(delete(group_members).where(group_members.c.group_id == number))
    connection.execute(delete(groups).where(groups.c.id == number))


def members_matching(query: FactsQuery) -> ColumnElement[bool]:
    """Give a question about facts as a condition on a device; it says what ``query.holds`` says."""
    conditions: list[ColumnElement[bool]] = []
    for condition in query.conditions:
        states = exists().where(facts.c.device_id == devices.c.id, facts.c.name == condition.fact)
        if condition.values:
            states = states.where(facts.c.value.in_(sorted(condition.values)))
        conditions.append(~states if condition.negated else states)
    return and_(*conditions)


def dynamic_groups(connection: Connection) -> dict[int, FactsQuery]:
    """Give the groups that are questions about facts."""
    rows = connection.execute(select(groups.c.id, groups.c.query).where(groups.c.query.is_not(None)))
    return {row.id: FactsQuery.parse(row.query) for row in rows}


def groups_of(connection: Connection, number: int) -> dict[int, GroupName]:
    """Give the groups that a device is in."""
    query = (
        select(groups.c.id, groups.c.name)
        .join(group_members, group_members.c.group_id == groups.c.id)
        .where(group_members.c.device_id == number)
    )
    return {row.id: GroupName(row.name) for row in connection.execute(query)}


def add_members(connection: Connection, group: int, numbers: Sequence[int]) -> None:
    """Put devices into a group; who is in it stays."""
    if numbers:
        rows = [{"group_id": group, "device_id": number} for number in numbers]
        connection.execute(insert_new(connection, group_members), rows)


def remove_members(connection: Connection, group: int, numbers: Sequence[int]) -> None:
    """Take devices out of a group."""
    for start in range(0, len(numbers), _BATCH):
        batch = numbers[start : start + _BATCH]
        connection.execute(
            delete(group_members).where(group_members.c.group_id == group, group_members.c.device_id.in_(batch))
        )


def _device(row: Any) -> Device:  # noqa: ANN401  # a row with the columns of the table
    return Device(
        number=row.id,
        name=ThingName(row.name),
        enrolled=moment(row.enrolled_at),
        seen=None if row.seen_at is None else moment(row.seen_at),
        retired=None if row.retired_at is None else moment(row.retired_at),
    )
