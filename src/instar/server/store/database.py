"""The database behind the fleet: SQLite in a file, or PostgreSQL. Transactions, and the tables brought up to date.

Whatever the database does is one of our errors: a database that cannot be reached is :class:`Unavailable`, and nothing
of the transaction has happened.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError

from instar.errors import Conflict, Misconfigured, Unavailable

__all__ = ["Store", "open_store"]

Result = TypeVar("Result")

# Milliseconds that a transaction waits for the one writer that SQLite has.
_BUSY_TIMEOUT: Final = 30_000
# How often a transaction is begun anew that the database gave up in favour of another.
_TRIES: Final = 5
# PostgreSQL's codes for that: serialization failure, deadlock.
_GIVEN_UP: Final = frozenset({"40001", "40P01"})
# Connections of one process: its worker threads, and one to look with.
_POOL: Final = 8
# Seconds until a database that does not answer counts as unreachable.
_CONNECT_TIMEOUT: Final = 10
# Any number, the same in every process: who migrates holds it.
_MIGRATION_LOCK: Final = 0x1A57A2
_MIGRATIONS: Final = Path(__file__).parent / "migrations"


class Store:
    """A database with our tables in it.

    Args:
        engine: how it is reached.

    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def engine(self) -> Engine:
        """How it is reached."""
        return self._engine

    def write(self, work: Callable[[Connection], Result]) -> Result:
        """Do ``work`` in one transaction, which is durable when this returns.

        It may be called again from the start, when another transaction was in the way: it changes nothing but the
        database.

        Raises:
            Unavailable: the database could not do it now. Nothing has changed, or nobody can say: ask how it stands.
            Conflict: somebody else made the same thing first.

        """
        for left in reversed(range(_TRIES)):
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except IntegrityError as error:
                raise Conflict("Somebody else made the same thing first.", hint="Look, and decide again.") from error
            except DBAPIError as error:
                if not left or getattr(error.orig, "sqlstate", None) not in _GIVEN_UP:
                    raise _unavailable(error) from error
            except SQLAlchemyError as error:
                raise _unavailable(error) from error
        raise AssertionError

    def read(self, work: Callable[[Connection], Result]) -> Result:
        """Do ``work``, which changes nothing, in one transaction.

        Raises:
            Unavailable: the database could not do it now.

        """
        try:
            with self._engine.connect().execution_options(reading=True) as connection, connection.begin():
                return work(connection)
        except SQLAlchemyError as error:
            raise _unavailable(error) from error

    def close(self) -> None:
        """Give its connections back."""
        self._engine.dispose()


def open_store(url: str) -> Store:
    """Open a database and bring its tables up to date; several processes may do so at once.

    Args:
        url: ``sqlite:///path/of/a/file`` or ``postgresql://user@host/name``.

    Raises:
        Misconfigured: the address is not one of those, or the tables are those of a newer version.
        Unavailable: it cannot be reached.

    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise Misconfigured("The database's address cannot be read.", hint=_addresses()) from error
    match parsed.get_backend_name():
        case "sqlite" if parsed.database and parsed.database != ":memory:":
            engine = _open_sqlite(parsed)
        case "postgresql":
            engine = create_engine(
                parsed.set(drivername="postgresql+psycopg"),
                pool_size=_POOL,
                # A connection that a restart of the database has cut is noticed before it is used.
                pool_pre_ping=True,
                connect_args={"connect_timeout": _CONNECT_TIMEOUT},
            )
        case _:
            raise Misconfigured("The fleet's database is SQLite in a file, or PostgreSQL.", hint=_addresses())
    store = Store(engine)
    try:
        store.write(_migrate)
    except BaseException:
        store.close()
        raise
    return store


def _open_sqlite(url: URL) -> Engine:
    engine = create_engine(url, pool_size=_POOL)

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: object) -> None:  # noqa: ANN401  # sqlite3.Connection, which is not declared so
        # Python's module would begin transactions late and commit before some statements; we say when.
        connection.isolation_level = None
        for pragma in (
            "journal_mode = WAL",
            # An update that was acknowledged survives a power cut, not only the end of the process.
            "synchronous = FULL",
            f"busy_timeout = {_BUSY_TIMEOUT}",
            "foreign_keys = ON",
            # KiB, below 0: sixty-four MiB of pages stay in memory.
            "cache_size = -65536",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # Who will write says so at once: two that began as readers could not both go on.
        reading = connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _migrate(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise Misconfigured(
            f"The database's tables are not those of this version: {error}.",
            hint="Run the version of instar that wrote them, or a newer one.",
        ) from error


def _unavailable(error: SQLAlchemyError) -> Unavailable:
    cause = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
    return Unavailable(f"The fleet's database did not do it: {cause[0]}.", hint="Try again later.")


def _addresses() -> str:
    return "Write sqlite:///path/of/a/file or postgresql://user@host/name."
