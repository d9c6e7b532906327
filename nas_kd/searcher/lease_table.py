"""Lease rows in the database that holds Optuna's tables, for workers on many machines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nas_kd.errors import SettingError
from nas_kd.runs.leases import Lease
from nas_kd.searcher.database import without_password

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData

# how long a connection to a lost machine is kept open; in seconds, the last one in milliseconds
TIMEOUTS = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
ATTEMPTS = 5  # two workers that create the tables at once conflict
IDLE_TIMEOUT = "120s"  # then the database releases the lock of a machine that was lost in a transaction


class TableLeases:
    """Lease rows of one study in a database.

    Args:
        url: SQLAlchemy's URL of the database.
        study: the study's name.

    Raises:
        SettingError: the database cannot be reached or written to, or its driver is not installed; all methods raise
            it when the connection is lost.
    """

    def __init__(self, url: str, study: str) -> None:
        from sqlalchemy.exc import IntegrityError, ProgrammingError

        self.url = url
        self.study = study
        with database_errors(url):
            self.engine = connected(url)
            self.tables = _tables()
            for attempt in range(ATTEMPTS):
                try:
                    self._prepare()
                    break
                except (IntegrityError, ProgrammingError):
                    if attempt == ATTEMPTS - 1:
                        raise
                    time.sleep(0.2 * (attempt + 1))

    def _prepare(self) -> None:
        from sqlalchemy import insert, select

        self.tables.create_all(self.engine)
        studies = self.tables.tables["nas_kd_study"]
        with self.engine.begin() as connection:
            if connection.execute(select(studies).where(studies.c.name == self.study)).first() is None:
                connection.execute(insert(studies).values(name=self.study))

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Enter a transaction."""
        with database_errors(self.url), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Wait for the study's row; the database releases it when a worker's connection ends."""
        from sqlalchemy import select, text

        studies = self.tables.tables["nas_kd_study"]
        with self._transaction() as connection:
            if self.engine.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_TIMEOUT}'"))
            connection.execute(select(studies).where(studies.c.name == self.study).with_for_update()).one()
            yield

    def rows(self) -> list[Lease]:
        """Return all rows of the study."""
        from sqlalchemy import select

        leases = self.tables.tables["nas_kd_lease"]
        with self._transaction() as connection:
            found = connection.execute(select(leases).where(leases.c.study == self.study)).mappings().all()
        return [Lease(**{name: row[name] for name in Lease.__dataclass_fields__}) for row in found]

    def put(self, lease: Lease) -> None:
        """Write a row."""
        from sqlalchemy import delete, func, insert

        leases = self.tables.tables["nas_kd_lease"]
        with self._transaction() as connection:  # one transaction: nobody sees the worker without a row
            connection.execute(delete(leases).where(leases.c.study == self.study, leases.c.worker == lease.worker))
            connection.execute(insert(leases).values(study=self.study, renewed=func.now(), **asdict(lease)))

    def renew(self, worker: str) -> None:
        """Increment a lease's heartbeat."""
        from sqlalchemy import func, update

        leases = self.tables.tables["nas_kd_lease"]
        own = (leases.c.study == self.study, leases.c.worker == worker)
        with self._transaction() as connection:
            connection.execute(update(leases).where(*own).values(heartbeat=leases.c.heartbeat + 1, renewed=func.now()))

    def drop(self, worker: str) -> None:
        """Delete a row."""
        from sqlalchemy import delete

        leases = self.tables.tables["nas_kd_lease"]
        with self._transaction() as connection:
            connection.execute(delete(leases).where(leases.c.study == self.study, leases.c.worker == worker))


def _tables() -> MetaData:
    from sqlalchemy import Column, DateTime, Integer, MetaData, String, Table

    tables = MetaData()
    Table("nas_kd_study", tables, Column("name", String(512), primary_key=True))
    Table(
        "nas_kd_lease",
        tables,
        Column("study", String(512), primary_key=True),
        Column("worker", String(200), primary_key=True),
        Column("pid", Integer),
        Column("host", String(200)),
        Column("place", String(200)),
        Column("started", String(32)),
        Column("job", String(64)),
        Column("heartbeat", Integer),
        Column("renewed", DateTime),
    )
    return tables


def connected(url: str) -> Engine:
    """Return an engine for a database.

    Args:
        url: its URL; ``postgresql://`` means psycopg 3 where psycopg 2 is not installed.
    """
    import sqlalchemy

    return sqlalchemy.create_engine(with_driver(url), **engine_settings(url))


def engine_settings(url: str) -> dict[str, Any]:
    """Return arguments of ``create_engine`` with which a lost database is noticed within a minute.

    Args:
        url: its URL; timeouts in it have precedence.
    """
    from sqlalchemy import make_url

    parts = make_url(with_driver(url))
    timeouts = TIMEOUTS if parts.get_backend_name() == "postgresql" else {}
    return {
        "pool_pre_ping": True,
        "connect_args": {name: value for name, value in timeouts.items() if name not in parts.query},
    }


def with_driver(url: str) -> str:
    """Add the driver to a PostgreSQL URL without one: psycopg 3, unless only psycopg 2 is installed."""
    from importlib.util import find_spec

    scheme, mark, rest = url.partition("://")
    plain = scheme in ("postgresql", "postgres")
    if plain and (find_spec("psycopg") is not None or find_spec("psycopg2") is None):
        return f"postgresql+psycopg{mark}{rest}"
    return url


@contextmanager
def database_errors(url: str) -> Iterator[None]:
    """Turn an error of a database, its driver or Optuna's tables in it into one that says what to do.

    Raises:
        SettingError: raised instead of the driver's error.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except StorageInternalError as error:  # its message has no details
        raise _database_error(url, error.__cause__ or error) from error
    except (SQLAlchemyError, ImportError) as error:
        raise _database_error(url, error) from error


def _database_error(url: str, error: BaseException) -> SettingError:
    shown = without_password(url)
    again = "run the same command again: finished work is kept"
    if isinstance(error, ImportError):
        expected = "a database whose driver is installed"
        hint = "pip install 'nas_kd[postgres]', or the driver that the URL names"
        return SettingError("search.storage", shown, expected, hint)
    cause = getattr(error, "orig", None) or error
    lines = str(cause).replace(with_driver(url), shown).replace(url, shown).strip().splitlines()
    message = lines[0] if lines else type(error).__name__
    state = str(getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or "")
    if state in ("42501", "25006"):  # insufficient_privilege, read_only_sql_transaction
        expected = "a database whose tables this user may create, read and write"
        hint = "grant these rights, or use another database"
    elif state[:2] in ("42", "3F"):  # missing tables, columns or schemas
        expected = "a database whose tables no other program changes"
        hint = f"use another database, or {again}"
    else:
        expected = "a database that responds"
        hint = f"start it, or check the URL, the user and PGPASSWORD; then {again}"
    return SettingError("search.storage", shown, f"{expected} ({message})", hint)
