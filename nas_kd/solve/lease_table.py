"""Lease rows in a database, beside Optuna's tables, for workers on many machines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from nas_kd.checks import without_password
from nas_kd.errors import SettingError
from nas_kd.leases import Lease

if TYPE_CHECKING:
    from sqlalchemy import Engine, MetaData

TRIES = 5  # two workers that make the tables at once are in each other's way
IDLE = "120s"  # after that the database takes the lock from a machine that went away in the middle of a decision


class TableLeases:
    """Lease rows of one study in a database.

    Args:
        url: SQLAlchemy's URL of the database.
        study: the study's name.

    Raises:
        SettingError: the database cannot be reached, or its driver is not installed.
    """

    def __init__(self, url: str, study: str) -> None:
        from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, ProgrammingError

        self.study = study
        try:
            self.engine = connected(url)
            self.tables = _tables()
            for attempt in range(TRIES):
                try:
                    self._prepare()
                    break
                except (IntegrityError, ProgrammingError):
                    if attempt == TRIES - 1:
                        raise
                    time.sleep(0.2 * (attempt + 1))
        except (OperationalError, ProgrammingError, ArgumentError, ImportError) as error:
            raise unreachable(url, error) from error

    def _prepare(self) -> None:
        from sqlalchemy import insert, select

        self.tables.create_all(self.engine)
        studies = self.tables.tables["nas_kd_study"]
        with self.engine.begin() as connection:
            if connection.execute(select(studies).where(studies.c.name == self.study)).first() is None:
                connection.execute(insert(studies).values(name=self.study))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Wait for the study's row; the database frees it when a worker's connection ends."""
        from sqlalchemy import select, text

        studies = self.tables.tables["nas_kd_study"]
        with self.engine.begin() as connection:
            if self.engine.dialect.name == "postgresql":
                connection.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE}'"))
            connection.execute(select(studies).where(studies.c.name == self.study).with_for_update()).one()
            yield

    def rows(self) -> list[Lease]:
        """Return all rows of the study."""
        from sqlalchemy import select

        leases = self.tables.tables["nas_kd_lease"]
        with self.engine.begin() as connection:
            found = connection.execute(select(leases).where(leases.c.study == self.study)).mappings().all()
        return [Lease(**{name: row[name] for name in Lease.__dataclass_fields__}) for row in found]

    def put(self, lease: Lease) -> None:
        """Write a row."""
        from sqlalchemy import delete, func, insert

        leases = self.tables.tables["nas_kd_lease"]
        with self.engine.begin() as connection:  # one transaction: nobody sees the worker without a row
            connection.execute(delete(leases).where(leases.c.study == self.study, leases.c.worker == lease.worker))
            connection.execute(insert(leases).values(study=self.study, renewed=func.now(), **asdict(lease)))

    def renew(self, worker: str) -> None:
        """Count a row's beat up."""
        from sqlalchemy import func, update

        leases = self.tables.tables["nas_kd_lease"]
        own = (leases.c.study == self.study, leases.c.worker == worker)
        with self.engine.begin() as connection:
            connection.execute(update(leases).where(*own).values(beat=leases.c.beat + 1, renewed=func.now()))

    def drop(self, worker: str) -> None:
        """Delete a row."""
        from sqlalchemy import delete

        leases = self.tables.tables["nas_kd_lease"]
        with self.engine.begin() as connection:
            connection.execute(delete(leases).where(leases.c.study == self.study, leases.c.worker == worker))


def _tables() -> MetaData:
    from sqlalchemy import Column, DateTime, Integer, MetaData, String, Table

    tables = MetaData()
    Table("nas_kd_study", tables, Column("name", String(512), primary_key=True))
    Table(
        "nas_kd_lease", tables, Column("study", String(512), primary_key=True),
        Column("worker", String(200), primary_key=True), Column("pid", Integer), Column("host", String(200)),
        Column("place", String(200)), Column("started", String(32)), Column("job", String(64)),
        Column("beat", Integer), Column("renewed", DateTime),
    )  # fmt: skip
    return tables


def connected(url: str) -> Engine:
    """Return an engine for a database.

    Args:
        url: its URL; ``postgresql://`` means psycopg 3 where psycopg 2 is not installed.
    """
    import sqlalchemy

    return sqlalchemy.create_engine(driven(url), pool_pre_ping=True)


def driven(url: str) -> str:
    """Name the driver of a PostgreSQL URL that names none.

    Args:
        url: the database's URL.

    Returns:
        The URL with psycopg 3, unless psycopg 2 is what is installed.
    """
    from importlib.util import find_spec

    scheme, mark, rest = url.partition("://")
    plain = scheme in ("postgresql", "postgres")
    if plain and (find_spec("psycopg") is not None or find_spec("psycopg2") is None):
        return f"postgresql+psycopg{mark}{rest}"
    return url


def unreachable(url: str, error: Exception) -> SettingError:
    """Word an error of the database for its user.

    Args:
        url: the database's URL.
        error: what SQLAlchemy or the driver raised.
    """
    if isinstance(error, ImportError):
        legal = "a database whose driver is installed"
        mend = "pip install 'nas_kd[postgres]', or the driver that the URL names"
        return SettingError("search.storage", without_password(url), legal, mend)
    said = str(getattr(error, "orig", None) or error).strip().splitlines()
    legal = f"a database that answers ({said[0] if said else type(error).__name__})"
    mend = "start it, or mend the URL, the user or PGPASSWORD"
    return SettingError("search.storage", without_password(url), legal, mend)
