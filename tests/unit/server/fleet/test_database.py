"""The database itself: its tables and their history, transactions that two want at once, and what is in its way."""

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, insert, select, text, update

from instar.errors import Conflict, Misconfigured, Unavailable
from instar.server.store.bulk import BATCH
from instar.server.store.database import Store, open_store
from instar.server.store.schema import devices, executions, groups, is_pending, is_planned, metadata


def test_the_steps_of_the_migration_lead_to_the_tables_as_they_are_written(store: Store) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    assert store.read(differences) == []


def test_a_database_is_opened_again_as_it_was_left(address: str) -> None:
    first = open_store(address)
    first.write(lambda c: c.execute(insert(devices).values(name="a", enrolled_at=1)))
    first.close()
    second = open_store(address)
    assert second.read(lambda c: c.execute(select(devices.c.name)).scalars().all()) == ["a"]
    second.close()


def test_several_processes_may_open_a_new_database_at_once(address: str) -> None:
    opened: list[Store] = []
    threads = [threading.Thread(target=lambda: opened.append(open_store(address))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    assert opened[0].read(lambda c: c.execute(select(groups.c.name)).scalars().all()) == ["everybody"]
    for store in opened:
        store.close()


def test_the_tables_of_a_newer_version_are_left_alone(address: str) -> None:
    store = open_store(address)
    store.write(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    store.close()
    with pytest.raises(Misconfigured, match="not those of this version"):
        open_store(address)


@pytest.mark.parametrize("address", ["", "nonsense", "mysql://a/b", "sqlite://", "sqlite:///:memory:"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(Misconfigured, match="sqlite:///"):
        open_store(address)


def test_a_database_that_cannot_be_reached_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        open_store(f"sqlite:///{tmp_path}/no/such/folder/fleet.db")
    with pytest.raises(Unavailable):
        open_store("postgresql://instar@127.0.0.1:1/nothing")


def test_a_transaction_that_fails_leaves_nothing(store: Store) -> None:
    def fail(connection: Connection) -> None:
        connection.execute(insert(devices).values(name="a", enrolled_at=1))
        raise LookupError

    with pytest.raises(LookupError):
        store.write(fail)
    assert store.read(lambda c: c.execute(select(devices)).all()) == []


def test_who_makes_the_same_thing_second_is_told(store: Store) -> None:
    store.write(lambda c: c.execute(insert(devices).values(name="a", enrolled_at=1)))
    with pytest.raises(Conflict):
        store.write(lambda c: c.execute(insert(devices).values(name="a", enrolled_at=1)))


def test_a_transaction_that_was_given_up_for_another_is_begun_again(store: Store) -> None:
    # Each takes what the other wants next: PostgreSQL gives up one of them, SQLite lets one wait.
    store.write(lambda c: c.execute(insert(devices), [{"name": name, "enrolled_at": 0} for name in ("a", "b")]))
    both = threading.Barrier(2)
    tries: list[str] = []

    def take(first: str, second: str) -> None:
        def work(connection: Connection) -> None:
            again = first in tries
            tries.append(first)
            add = update(devices).values(enrolled_at=devices.c.enrolled_at + 1)
            if not again and connection.dialect.name == "postgresql":
                connection.execute(add.where(devices.c.name == first))
                both.wait()
            else:
                connection.execute(add.where(devices.c.name == first))
            connection.execute(add.where(devices.c.name == second))

        store.write(work)

    threads = [threading.Thread(target=take, args=names) for names in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read(lambda c: c.execute(select(devices.c.enrolled_at)).scalars().all()) == [2, 2]
    # Who began again may have met the other once more.
    assert len(tries) > 2 if store.engine.dialect.name == "postgresql" else len(tries) == 2


@pytest.mark.parametrize("address", ["sqlite"], indirect=True)
def test_what_devices_ask_reads_an_index_that_holds_only_what_is_pending(store: Store) -> None:
    def plan(connection: Connection, *conditions: object) -> str:
        query = select(executions.c.job_id).where(*conditions)  # type: ignore[arg-type]
        compiled = query.compile(connection, compile_kwargs={"literal_binds": True})
        return str(connection.execute(text(f"EXPLAIN QUERY PLAN {compiled}")).all())

    assert "ix_executions_pending" in store.read(lambda c: plan(c, executions.c.device_id.in_([1, 2]), is_pending()))
    assert "ix_executions_planned" in store.read(lambda c: plan(c, executions.c.job_id == 1, is_planned()))
    assert BATCH > 1_000
