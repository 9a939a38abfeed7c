"""The tables. Times are milliseconds since 1970 in UTC; values with structure are JSON text that only we read.

Locks are always taken in this order, so that no two transactions wait for each other: the lock row of a job
(``job_locks``), devices in order of their number, jobs in order of their number.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    ForeignKey,
    FromClause,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
    literal_column,
    text,
)

from instar.model.job import ExecutionStatus

__all__ = [
    "EVERYBODY",
    "PLANNED",
    "attempts",
    "audit",
    "devices",
    "events",
    "executions",
    "facts",
    "group_members",
    "groups",
    "is_pending",
    "is_planned",
    "job_devices",
    "job_groups",
    "job_locks",
    "jobs",
    "metadata",
    "notices",
    "tokens",
]

EVERYBODY: Final = "everybody"
"""The group that every device is in; it is made with the tables."""

PLANNED: Final = "PLANNED"
"""The status of a row for a device that was found for a job and not yet given it: no execution yet."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only where the column is exactly its INTEGER, which holds 64 bits there.
_Number = BigInteger().with_variant(Integer, "sqlite")
_Time = BigInteger


def _number(name: str = "id") -> Column[int]:
    return Column(name, _Number, primary_key=True)


devices = Table(
    "devices",
    metadata,
    _number(),
    Column("name", String(128), nullable=False, unique=True),
    Column("enrolled_at", _Time, nullable=False),
    Column("seen_at", _Time),
    Column("retired_at", _Time),
    # A number that was deleted is never given again.
    sqlite_autoincrement=True,
)

facts = Table(
    "facts",
    metadata,
    Column("device_id", ForeignKey("devices.id"), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("value", String(256), nullable=False),
    Index(None, "name", "value", "device_id"),
    sqlite_with_rowid=False,
)

groups = Table(
    "groups",
    metadata,
    _number(),
    Column("name", String(128), nullable=False, unique=True),
    # A question about facts; without one the members are named by hand.
    Column("query", Text),
)

group_members = Table(
    "group_members",
    metadata,
    Column("group_id", ForeignKey("groups.id"), primary_key=True),
    Column("device_id", ForeignKey("devices.id"), primary_key=True),
    Index(None, "device_id"),
    sqlite_with_rowid=False,
)

jobs = Table(
    "jobs",
    metadata,
    _number(),
    Column("name", String(64), nullable=False, unique=True),
    Column("status", String(24), nullable=False),
    Column("force", Boolean, nullable=False, server_default=false()),
    # Why it stands as it does, for people.
    Column("reason", Text),
    Column("document", Text, nullable=False),
    Column("settings", Text, nullable=False),
    # Also in the settings; devices that come into a group look for the jobs that are CONTINUOUS.
    Column("selection", String(16), nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("approved_by", String(128)),
    Column("created_at", _Time, nullable=False),
    Column("updated_at", _Time, nullable=False),
    Column("ended_at", _Time),
    # Where its executions stand; always equal to what counting their rows would give.
    *(Column(f"n_{status.name.lower()}", Integer, nullable=False, server_default="0") for status in ExecutionStatus),
    Column("n_waiting", Integer, nullable=False, server_default="0"),
    # How far finding its devices came: the place in its list of groups (0: devices named alone), the last device.
    Column("planned", Boolean, nullable=False, server_default=false()),
    Column("plan_group", Integer, nullable=False, server_default="0"),
    Column("plan_device", BigInteger, nullable=False, server_default="0"),
    Column("sweep_device", BigInteger, nullable=False, server_default="0"),
    Column("closed", Boolean, nullable=False, server_default=false()),
    Column("pace_minute", _Time),
    Column("pace_given", Integer, nullable=False, server_default="0"),
    # When a worker looks at it next. Whoever sets it counts `woken` up, so that no worker's rest overwrites it.
    Column("due_at", _Time),
    Column("woken", Integer, nullable=False, server_default="0"),
    Index(
        "ix_jobs_due_at", "due_at", sqlite_where=text("due_at IS NOT NULL"), postgresql_where=text("due_at IS NOT NULL")
    ),
    # A number that was deleted is never given again.
    sqlite_autoincrement=True,
)

# Held by the worker that does a job's next step, for so long. Not the job's own row: devices that end executions
# change its counters while they hold their own rows, and a step locks devices.
job_locks = Table("job_locks", metadata, Column("job_id", ForeignKey("jobs.id"), primary_key=True))

job_devices = Table(
    "job_devices",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("device_id", ForeignKey("devices.id"), primary_key=True),
    sqlite_with_rowid=False,
)

job_groups = Table(
    "job_groups",
    metadata,
    Column("job_id", ForeignKey("jobs.id"), primary_key=True),
    Column("group_id", ForeignKey("groups.id"), primary_key=True),
    Index(None, "group_id"),
    sqlite_with_rowid=False,
)

_PENDING: Final = "status IN ('QUEUED', 'IN_PROGRESS')"
_PLANNED: Final = "status = 'PLANNED'"

# No foreign keys: a million rows are written at once from rows that were just read, and only steps delete jobs.
executions = Table(
    "executions",
    metadata,
    Column("job_id", BigInteger, primary_key=True),
    Column("device_id", BigInteger, primary_key=True),
    Column("status", String(16), nullable=False),
    Column("attempt", Integer, nullable=False, server_default="1"),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("queued_at", _Time, nullable=False),
    Column("updated_at", _Time, nullable=False),
    Column("started_at", _Time),
    Column("deadline", _Time),
    Column("step_deadline", _Time),
    # The earlier of the two.
    Column("due_at", _Time),
    Column("details", Text),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("timeouts", Integer, nullable=False, server_default="0"),
    Index("ix_executions_pending", "device_id", sqlite_where=text(_PENDING), postgresql_where=text(_PENDING)),
    # The status among its columns makes SQLite prefer it to the primary key, which begins alike.
    Index(
        "ix_executions_planned",
        "job_id",
        "status",
        "device_id",
        sqlite_where=text(_PLANNED),
        postgresql_where=text(_PLANNED),
    ),
    Index(
        "ix_executions_due_at",
        "due_at",
        sqlite_where=text("due_at IS NOT NULL"),
        postgresql_where=text("due_at IS NOT NULL"),
    ),
    sqlite_with_rowid=False,
)

# Attempts that another one followed.
attempts = Table(
    "attempts",
    metadata,
    Column("job_id", BigInteger, primary_key=True),
    Column("device_id", BigInteger, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("status", String(16), nullable=False),
    Column("queued_at", _Time, nullable=False),
    Column("started_at", _Time),
    Column("ended_at", _Time, nullable=False),
    Column("details", Text),
    Index(None, "device_id"),
    sqlite_with_rowid=False,
)

# Devices to be told that their list changed, and with `head` that its first entry did. What they are told is read when
# they are told. Leased by a worker, deleted when said.
notices = Table(
    "notices",
    metadata,
    _number(),
    Column("device_id", BigInteger, nullable=False),
    Column("listing", Boolean, nullable=False),
    Column("head", Boolean, nullable=False),
    Column("leased_until", _Time, nullable=False, server_default="0"),
    # A number that was deleted is never given again.
    sqlite_autoincrement=True,
)

events = Table(
    "events",
    metadata,
    _number(),
    Column("at", _Time, nullable=False),
    Column("job", String(64), nullable=False),
    # Of an execution; of a job where it is empty.
    Column("thing", String(128), nullable=False, server_default=""),
    Column("what", String(32), nullable=False),
    Column("leased_until", _Time, nullable=False, server_default="0"),
    # A number that was deleted is never given again.
    sqlite_autoincrement=True,
)

tokens = Table(
    "tokens",
    metadata,
    _number(),
    # Of the secret; the secret itself is shown once and kept nowhere.
    Column("digest", String(64), nullable=False, unique=True),
    Column("name", String(128), nullable=False),
    Column("scopes", Text, nullable=False),
    # The one device that it speaks for, where it speaks for one.
    Column("device_id", ForeignKey("devices.id")),
    Column("created_at", _Time, nullable=False),
    Column("expires_at", _Time),
    Column("revoked_at", _Time),
    # How often it may still be used to enrol; without a number, as often as wanted.
    Column("uses_left", Integer),
    Index(None, "device_id"),
)

audit = Table(
    "audit",
    metadata,
    _number(),
    Column("at", _Time, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("detail", Text, nullable=False),
)


def is_pending(rows: FromClause = executions) -> ColumnElement[bool]:
    """Give the condition of the index of pending executions, in constants: a bound value would not use it."""
    return rows.c.status.in_([literal_column("'QUEUED'"), literal_column("'IN_PROGRESS'")])


def is_planned() -> ColumnElement[bool]:
    """Give the condition of the index of rows that wait to be given out, in constants."""
    return executions.c.status == literal_column("'PLANNED'")
