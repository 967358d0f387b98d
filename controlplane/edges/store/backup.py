"""A copy of the whole store while it runs, in a form that either database can be filled from.

The form is JSON lines, compressed with gzip: a header (format, versions, the tables' columns), a
line ``[table, values]`` for each row, and a trailer with the number of rows of each table, by
which a file that was cut off is known.
"""

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, column, delete, func, insert, select, table, text
from sqlalchemy.sql.expression import TableClause

from controlplane.domain.clock import SECOND, Instant
from controlplane.domain.codec import SCHEMA_VERSION
from controlplane.edges.store.database import (
    connect,
    for_consistent_reading,
    for_writing,
    lock_against_others,
    where,
)
from controlplane.edges.store.errors import (
    BackupRefusedError,
    StoreTooNewError,
    told_as_store_errors,
)
from controlplane.edges.store.restoring import (
    ATTEMPT_FLOOR,
    RESTORED,
    SEQUENCE_FLOOR,
    last_sequence,
)
from controlplane.edges.store.schema import (
    REVISIONS,
    VERSION_TABLE,
    migrate,
    revision_of,
    run_migrations,
)
from controlplane.edges.store.tables import LEASE, META, METADATA

FORMAT = "headrace-backup"
FORMAT_VERSION = 1

_GZIP = 31  # zlib's number for a gzip stream with the largest window
_CHUNK_BYTES = 128 * 1024
_ROWS_AT_ONCE = 500
_TERM_JUMP = 1_000_000
_SEQUENCE_JUMP = 1_000_000
_ATTEMPT_JUMP = 1_000_000


def backup(engine: Engine, at: Instant) -> Iterator[bytes]:
    """See ``Store.backup``."""
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    packed = bytearray()
    place = where(engine)
    with told_as_store_errors(place):
        for line in _lines(engine, at):
            packed += packer.compress(line)
            if len(packed) >= _CHUNK_BYTES:
                yield bytes(packed)
                packed.clear()
    yield bytes(packed) + packer.flush()


def _lines(engine: Engine, at: Instant) -> Iterator[bytes]:
    counts: Counter[str] = Counter()
    with for_consistent_reading(engine).connect() as connection, connection.begin():
        header = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "schema_version": SCHEMA_VERSION,
            "revision": revision_of(connection),
            "at_ns": at,
            "tables": {t.name: [c.name for c in t.columns] for t in METADATA.sorted_tables},
        }
        yield _line(header)
        for each in METADATA.sorted_tables:
            ordered = select(each).order_by(*each.primary_key.columns)
            streamed = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(ordered)
            for row in streamed:
                counts[each.name] += 1
                yield _line([each.name, list(row)])
    yield _line({"rows": {t.name: counts[t.name] for t in METADATA.sorted_tables}})


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def pieces_of(file: Path) -> Iterator[bytes]:
    """A backup's file, as it is restored from."""
    with file.open("rb") as stream:
        while piece := stream.read(1 << 20):
            yield piece


def restore(chunks: Iterable[bytes], url: str, now: Instant) -> None:
    """Fills the empty database at ``url`` from what ``Store.backup`` gave; all of it or nothing.

    Terms, sequence numbers and attempts go on from a place that was not reached before, for agents,
    ranks and clients remember what was given out after the backup was made.

    Raises:
        BackupRefusedError: The target is not empty, or this is no whole backup.
        StoreTooNewError: A newer Headrace made the backup.
    """
    lines = _unpacked(chunks)
    header = _header(next(lines, b""))
    engine = connect(url)
    try:
        with told_as_store_errors(where(engine)):
            with for_writing(engine).begin() as connection:
                lock_against_others(connection)
                _make_way(connection)
                run_migrations(connection, header.revision)
                _fill(connection, header, lines)
                run_migrations(connection, REVISIONS[-1])
                _jump(connection, header, now)
            migrate(engine)
    finally:
        engine.dispose()


@dataclass(frozen=True, slots=True)
class _Header:
    revision: str
    at: Instant
    tables: dict[str, list[str]]


def _header(line: bytes) -> _Header:
    try:
        header = json.loads(line)
        if header["format"] != FORMAT:
            raise BackupRefusedError(f"this is not a backup of a store but {header['format']!r}")
        newest = (header["format_version"], header["schema_version"])
        found = _Header(str(header["revision"]), Instant(header["at_ns"]), header["tables"])
    except (ValueError, KeyError, TypeError) as error:
        raise BackupRefusedError(
            "this is not a backup of a store; wanted a file that `headrace backup` wrote"
        ) from error
    if newest[0] > FORMAT_VERSION or newest[1] > SCHEMA_VERSION or found.revision not in REVISIONS:
        raise StoreTooNewError(
            f"a newer Headrace made this backup (format {newest[0]}, schema {newest[1]}, tables "
            f"{found.revision}); this one knows format {FORMAT_VERSION}, schema {SCHEMA_VERSION}, "
            f"tables {REVISIONS[-1]}. Restore it with the Headrace that made it"
        )
    return found


def _unpacked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines in compressed chunks."""
    unpacker = zlib.decompressobj(_GZIP)
    rest = b""
    try:
        for chunk in chunks:
            *whole, rest = (rest + unpacker.decompress(chunk)).split(b"\n")
            yield from whole
    except zlib.error as error:
        raise BackupRefusedError(
            f"this is not a backup of a store, or it is damaged ({error})"
        ) from error
    if rest or not unpacker.eof:
        raise BackupRefusedError(
            "the backup is cut off; copy the file again, or take an earlier one"
        )


def _make_way(connection: Connection) -> None:
    """Removes empty tables of ours; refuses if they are not empty, or not ours."""
    place = where(connection.engine)
    found = revision_of(connection)
    if found is None:
        return
    if found not in REVISIONS:
        raise StoreTooNewError(f"{place} was made by a newer Headrace; restore into another one")
    held = [
        each.name
        for each in METADATA.sorted_tables
        if each not in (META, LEASE)
        and connection.scalar(select(func.count()).select_from(select(each).limit(1).subquery()))
    ]
    if held or connection.scalar(select(func.max(LEASE.c.term))):
        raise BackupRefusedError(
            f"{place} is not empty (it has {', '.join(held) or 'given out terms'}), and a backup "
            "never overwrites; restore into a new database"
        )
    METADATA.drop_all(connection)
    connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))


def _fill(connection: Connection, header: _Header, lines: Iterator[bytes]) -> None:
    tables = {
        name: table(name, *(column(each) for each in columns))
        for name, columns in header.tables.items()
    }
    for each in tables.values():
        connection.execute(delete(each))  # The migrations put first rows in.
    counts: Counter[str] = Counter()
    batch: list[dict[str, Any]] = []
    filling = ""
    for line in lines:
        name, row = _parsed(line, header)
        if not name:
            _insert(connection, tables, filling, batch)
            _check_counts(row, counts)
            break
        if name != filling or len(batch) >= _ROWS_AT_ONCE:
            _insert(connection, tables, filling, batch)
            filling, batch = name, []
        batch.append(row)
        counts[name] += 1
    else:
        raise BackupRefusedError("the backup has no end")
    for _surplus in lines:  # Reads on to the end, where the checksum is.
        raise BackupRefusedError("the backup goes on after its end")


def _parsed(line: bytes, header: _Header) -> tuple[str, dict[str, Any]]:
    """A row and the name of its table; or, with an empty name, the trailer's counts."""
    try:
        value = json.loads(line)
        if isinstance(value, dict):
            return "", dict(value["rows"])
        name, values = value
        return str(name), dict(zip(header.tables[name], values, strict=True))
    except (ValueError, KeyError, TypeError) as error:
        raise BackupRefusedError(f"the backup is damaged at {line[:60]!r}") from error


def _insert(
    connection: Connection,
    tables: dict[str, TableClause],
    name: str,
    batch: list[dict[str, Any]],
) -> None:
    if batch:
        connection.execute(insert(tables[name]), batch)


def _check_counts(promised: dict[str, int], counts: Counter[str]) -> None:
    wrong = [
        f"{counts[name]} of {wanted} {name}"
        for name, wanted in promised.items()
        if counts[name] != wanted
    ]
    if wrong:
        raise BackupRefusedError(f"the backup is damaged: it holds {', '.join(wrong)}")


def _jump(connection: Connection, header: _Header, now: Instant) -> None:
    """Puts the next term, number and attempts above all that can have been given out."""
    term = connection.scalar(select(func.max(LEASE.c.term))) or 0
    # Control planes start less than once a second, and so do attempts of one job: what follows
    # the clock since a restore is above that of any earlier restore, also of the same backup. A
    # clock that is behind the backup cannot be trusted with that.
    by_clock = now // SECOND if now >= header.at else 0
    jumped = by_clock if by_clock > term else term + _TERM_JUMP
    connection.execute(LEASE.update().values(term=jumped, holder="", renewed_at_ns=0))
    noted = connection.scalar(select(META.c.value).where(META.c.name == ATTEMPT_FLOOR))
    attempt = max(int(noted or 0), header.at // SECOND)
    marks = {
        SEQUENCE_FLOOR: last_sequence(connection) + _SEQUENCE_JUMP,
        ATTEMPT_FLOOR: by_clock if by_clock > attempt else attempt + _ATTEMPT_JUMP,
        RESTORED: 1,
    }
    connection.execute(delete(META).where(META.c.name.in_(marks)))
    rows = [{"name": name, "value": str(value)} for name, value in marks.items()]
    connection.execute(insert(META), rows)
