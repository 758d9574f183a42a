"""Many rows in one transaction: read in one round trip, written in another together with the commit.

SQLAlchemy's unit of work sends one statement for each row and waits for each answer; BEGIN and COMMIT are two
more. A worker does the same for many rows. So it reads them with `read` and `attach`, and ends with `save`,
which speak to psycopg itself, in pipeline mode: the statements leave together. The rows are SQLAlchemy's
objects. If row code queries on its own, the session flushes as always, and `save` finds less to write.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from functools import cache
from typing import Any, TypeVar, cast
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import (
    BindParameter,
    ClauseElement,
    ColumnElement,
    Executable,
    Table,
    bindparam,
    func,
    inspect,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.orm import DeclarativeBase, InstanceState, Session, make_transient_to_detached
from sqlalchemy.orm.attributes import instance_state, set_committed_value

from shared.db.engines import note_error, wrapped
from shared.db.statements import literal
from shared.db.transactions import NOW, transaction

Row = TypeVar("Row", bound=DeclarativeBase)

BATCH = "batch"
QUERIES = "queries"
DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]
PARAMETER = re.compile(r"%\((\w+)\)s")


class Query:
    """A statement that is compiled once, for `read`."""

    def __init__(self, statement: Executable | str) -> None:
        if isinstance(statement, str):
            self._sql = statement
            return
        compiled = cast(Any, statement).compile(dialect=DIALECT)
        expanded = compiled.construct_expanded_state()
        given = {name for name, parameter in compiled.binds.items() if not parameter.unique}  # `value`
        constants = {name: value for name, value in expanded.parameters.items() if name not in given}
        self._sql = PARAMETER.sub(
            lambda match: literal(constants[match[1]]) if match[1] in constants else match[0],
            expanded.statement,
        )

    def __call__(self, **values: Any) -> tuple[str, dict[str, Any]]:
        """Return the statement with these values."""
        given = {
            name: _array(value) if isinstance(value, list | tuple) else value
            for name, value in values.items()
        }
        return self._sql, given


def value(name: str, type_: Any = None) -> BindParameter[Any]:
    """Return a parameter of a Query, whose value comes with each call."""
    return bindparam(name, None, type_=type_)


def _array(values: Sequence[Any]) -> str:
    """Return PostgreSQL's text for an array: psycopg would look at each element of each array."""
    if all(isinstance(value, UUID) for value in values):
        return "{" + ",".join(map(str, values)) + "}"
    quoted = (str(value).replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "{" + ",".join(f'"{value}"' for value in quoted) + "}"


def any_of(name: str, type_: Any) -> ColumnElement[Any]:
    """Return what a column is compared with to be one of a list, which comes with each call."""
    return func.any(value(name, ARRAY(type_)))


BEGIN = Query("BEGIN ISOLATION LEVEL READ COMMITTED")
SELECT_NOW = Query("SELECT now()")


class NotInBatch(Exception):
    """Rows need another row's lock, such as their wallet's, or are locked: each needs its own transaction.

    The row in `first` goes before the others, which may then need no such lock, those in `last` after them.
    Both are empty if only the transaction's own code knows which row it is.
    """

    def __init__(self, first: frozenset[UUID] = frozenset(), last: frozenset[UUID] = frozenset()) -> None:
        super().__init__(first, last)
        self.first = first
        self.last = last


@contextmanager
def batch(size: int) -> Iterator[Session]:
    """Run a transaction over `size` rows, which ends with `save`. Raises Unavailable."""
    with transaction() as session:
        session.info[BATCH] = size
        yield session
        save(session)


def require_alone(session: Session) -> None:
    """Raise NotInBatch if the session's transaction is about several rows.

    Call it before a lock that others take in another order: a batch that holds many rows would deadlock.
    """
    if session.info.get(BATCH, 1) > 1:
        raise NotInBatch


def columns(model: type[DeclarativeBase]) -> tuple[ColumnElement[Any], ...]:
    """Return the columns of a model in the order in which `attach` reads them."""
    return tuple(model.__table__.columns[name] for name in _names(model))


def read(session: Session, *queries: tuple[str, Mapping[str, Any]]) -> list[list[tuple[Any, ...]]]:
    """Run the queries in this order and return the rows of each, in one round trip; also reads `now`.

    Each query sees what was committed before it began, so rows that the first one locks are read anew by the
    next. Raises what the database raises.
    """
    driver = _driver(session)
    begin: tuple[tuple[str, dict[str, Any]], ...] = ()
    if driver.info.transaction_status == TransactionStatus.IDLE:
        # psycopg would send BEGIN by itself, and wait for it. The pool ends the autocommit mode.
        driver.autocommit = True
        begin = (BEGIN(),)
    with _errors(session), driver.pipeline():
        cursors = [driver.execute(*query) for query in (*begin, SELECT_NOW(), *queries)][len(begin) :]
    # Only now: to fetch inside the pipeline would be another round trip.
    (session.info[NOW],) = cursors[0].fetchone() or (None,)
    return [cursor.fetchall() for cursor in cursors[1:]]


def attach(session: Session, model: type[Row], rows: Iterable[Sequence[Any]]) -> list[Row]:
    """Return rows that were read with `columns(model)` as objects of the session, as if it had loaded them.

    Read what was locked before: an object that the session has already is refreshed, unless this transaction
    changed it.
    """
    return [_attach(session, model, values) for values in rows]


def _attach(session: Session, model: type[Row], values: Sequence[Any]) -> Row:
    known: Row | None = session.identity_map.get(_identity(model, values))
    if known is None:
        row: Row = cast(Any, inspect(model)).class_manager.new_instance()
        row.__dict__.update(zip(_names(model), values, strict=True))
        make_transient_to_detached(row)
        session.add(row)
        return row
    if not instance_state(known).modified:
        for name, value in zip(_names(model), values, strict=True):
            set_committed_value(known, name, value)
    return known


def _identity(model: type[DeclarativeBase], values: Sequence[Any]) -> Any:
    """Return the key under which a session knows the row."""
    places = _primary_key_places(model)
    return inspect(model).identity_key_from_primary_key(tuple(values[place] for place in places))


@cache
def _primary_key_places(model: type[DeclarativeBase]) -> tuple[int, ...]:
    return tuple(_names(model).index(column.name) for column in model.__table__.primary_key)


def add_query(session: Session, query: tuple[str, Mapping[str, Any]]) -> None:
    """Run this statement with `save`, after what changed is written. Its result is not read."""
    session.info.setdefault(QUERIES, []).append(query)


def save(session: Session) -> None:
    """Write what changed and commit, in one round trip. The session is empty afterwards.

    Raises what the database raises; then nothing was written.
    """
    changed = [*session.new, *session.dirty]
    if session.deleted or any(_is_computed(row) for row in changed):
        session.flush()  # SQLAlchemy writes what needs more than values
        changed = []
    models = {type(row): row.__table__ for row in changed}
    by_table = [model for table in _tables(changed) for model in models if models[model] is table]
    queries = [query for model in by_table for query in _statements(model, changed)]
    queries += session.info.pop(QUERIES, ())
    driver = _driver(session)
    with _errors(session), driver.pipeline():
        for query in queries:
            driver.execute(*query)
        driver.execute("COMMIT", prepare=False)  # `driver.commit()` would wait for what came before
    session.expunge_all()


def _statements(
    model: type[DeclarativeBase], changed: Iterable[DeclarativeBase]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield an UPDATE for a model's changed rows, and an INSERT for the new ones with the same columns.

    In this order, because a new row may take the place of one that has ended.
    """
    inserts: dict[tuple[str, ...], list[DeclarativeBase]] = {}
    updates: list[DeclarativeBase] = []
    changed_names: set[str] = set()
    for row in changed:
        if type(row) is not model:
            continue
        state = instance_state(row)
        if not state.persistent:
            names = tuple(name for name in _names(model) if name in state.dict)
            inserts.setdefault(names, []).append(row)
        elif row_names := _changed_names(state):
            changed_names |= row_names
            updates.append(row)
    if updates:
        # A row keeps its value in a column that only others change.
        names = tuple(name for name in _names(model) if name in changed_names)
        values = {"rows": _json((*_keys(model), *names), updates), "number": len(updates)}
        yield _update_sql(model, names), values
    for names, rows in inserts.items():
        yield _insert_sql(model, names), {"rows": _json(names, rows)}


def _tables(rows: Sequence[DeclarativeBase]) -> Sequence[Table]:
    """Return all tables, in the order of their foreign keys."""
    return rows[0].metadata.sorted_tables if rows else ()


def _is_computed(row: DeclarativeBase) -> bool:
    """True if the database is to compute one of the row's values."""
    return any(isinstance(value, ClauseElement) for value in row.__dict__.values())


def _changed_names(state: InstanceState[Any]) -> set[str]:
    before = state.committed_state  # only of attributes that were set
    return {name for name, value in before.items() if value != state.dict.get(name)}


@cache
def _insert_sql(model: type[DeclarativeBase], names: tuple[str, ...]) -> str:
    listed = ", ".join(names)
    return f"INSERT INTO {model.__tablename__} ({listed}) SELECT {listed} FROM {_rows_sql(model, names)}"


def _rows_sql(model: type[DeclarativeBase], names: Sequence[str]) -> str:
    """Return what reads these columns from the JSON of `_json`, as `new`."""
    types = {name: model.__table__.columns[name].type.compile(DIALECT) for name in names}
    return f"json_to_recordset(%(rows)s) new({', '.join(f'{name} {type_}' for name, type_ in types.items())})"


@cache
def _update_sql(model: type[DeclarativeBase], names: tuple[str, ...]) -> str:
    """Return an UPDATE that fails if it does not find every row as it was read."""
    keys = _keys(model)
    version = ", version = t.version + 1" if "version" in keys else ""
    return (
        f"WITH changed AS (UPDATE {model.__tablename__} t"
        f" SET {', '.join(f'{name} = new.{name}' for name in names)}{version}"
        f" FROM {_rows_sql(model, (*keys, *names))}"
        f" WHERE {' AND '.join(f't.{key} = new.{key}' for key in keys)} RETURNING 1)"
        " SELECT require_rows((SELECT count(*) FROM changed), %(number)s)"
    )


def _json(names: Sequence[str], rows: Iterable[DeclarativeBase]) -> str:
    """Return these values of the rows. One text is a tenth of the work of an array for each column."""
    values = ({name: row.__dict__.get(name) for name in names} for row in rows)
    return json.dumps(list(values), default=_json_value, ensure_ascii=False)


def _json_value(value: Any) -> str:
    """Return PostgreSQL's text for a value that JSON lacks."""
    if isinstance(value, bytes):
        return rf"\x{value.hex()}"
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value)


@cache
def _names(model: type[DeclarativeBase]) -> tuple[str, ...]:
    return tuple(column.name for column in model.__table__.columns if column.computed is None)


@cache
def _keys(model: type[DeclarativeBase]) -> tuple[str, ...]:
    """Return what identifies a row as it was read: its primary key, and its version if it has one."""
    keys = tuple(column.name for column in model.__table__.primary_key)
    return (*keys, "version") if "version" in model.__table__.columns else keys


def _driver(session: Session) -> psycopg.Connection[Any]:
    driver: psycopg.Connection[Any] = session.connection().connection.driver_connection  # type: ignore[assignment]
    return driver


@contextmanager
def _errors(session: Session) -> Iterator[None]:
    """Raise SQLAlchemy's error for one of the driver, and treat the connection as SQLAlchemy does."""
    connection = session.connection()
    try:
        yield
    except psycopg.Error as error:
        is_lost = note_error(error) or connection.dialect.is_disconnect(
            cast(Any, error), cast(Any, _driver(session)), None
        )
        if is_lost:
            connection.invalidate(error)
        raise wrapped(error, is_lost=is_lost) from error
