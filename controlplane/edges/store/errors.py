"""What can go wrong with the store, told in sentences for people, and turned from driver errors."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError

_SQLITE_BUSY, _SQLITE_LOCKED, _SQLITE_FULL = 5, 6, 13
_SQLITE_PRIMARY_CODE = 0xFF
_POSTGRES_FULL = ("53100", "53200")
_POSTGRES_LOCKED = ("55P03", "40P01", "57014", "25P03")
_POSTGRES_READ_ONLY = "25006"
"""The server follows another one for now, e.g. in the middle of a failover."""
_POSTGRES_REFUSED = ("28", "3D", "42")
"""Classes of errors that trying again does not cure: authorization, no such database, rights."""


class StoreError(Exception):
    """Something is wrong with the store; the message is a sentence for people."""


class StoreUnavailableError(StoreError):
    """Nothing was stored. The same may be tried again: it works when the database does."""


class StoreFullError(StoreUnavailableError):
    """The database has no room left."""


class StoreLockedError(StoreUnavailableError):
    """Someone else holds a lock on the database for longer than we wait."""


class StoreTooNewError(StoreError):
    """The store was written by a newer Headrace."""


class StoreClosedError(StoreError):
    """The writer was closed; this control plane is ending."""


class LeaseHeldError(StoreError):
    """Another control plane decides on this store and has been heard from lately.

    Attributes:
        holder: Who that is.
    """

    def __init__(self, holder: str, message: str) -> None:
        super().__init__(message)
        self.holder = holder


class BackupRefusedError(StoreError):
    """A backup cannot be restored: what it is, or where it shall go, is not as it must be."""


def _full(where: str) -> StoreError:
    return StoreFullError(
        f"{where} has no room left, so nothing more is accepted; make room on its disk, "
        "it goes on by itself then"
    )


def _locked(where: str, said: str) -> StoreError:
    return StoreLockedError(
        f"{where} is locked by someone else ({said}); end what holds it (another process, a "
        "long transaction), then try again"
    )


def as_store_error(error: SQLAlchemyError, where: str) -> StoreError:
    """The store's own error for one of the driver; ``where`` names the database."""
    cause = error.orig if isinstance(error, DBAPIError) else None
    said = " ".join(str(cause or error).split())
    sqlite_code = getattr(cause, "sqlite_errorcode", None)
    if sqlite_code is not None:
        code = sqlite_code & _SQLITE_PRIMARY_CODE
        if code == _SQLITE_FULL:
            return _full(where)
        if code in (_SQLITE_BUSY, _SQLITE_LOCKED):
            return _locked(where, said)
    state = getattr(cause, "sqlstate", None) or ""
    if state in _POSTGRES_FULL:
        return _full(where)
    if state in _POSTGRES_LOCKED:
        return _locked(where, said)
    if state.startswith(_POSTGRES_REFUSED):
        return StoreError(f"{where} refused: {said}")
    is_away = isinstance(error, OperationalError | InterfaceError) or _is_connection_gone(error)
    if is_away or state == _POSTGRES_READ_ONLY:
        return StoreUnavailableError(f"{where} cannot be used now: {said}")
    return StoreError(f"{where} refused: {said}")


def _is_connection_gone(error: SQLAlchemyError) -> bool:
    return isinstance(error, DBAPIError) and (
        error.connection_invalidated
        or isinstance(error.orig, sqlite3.OperationalError | sqlite3.InternalError)
    )


@contextmanager
def told_as_store_errors(where: str) -> Iterator[None]:
    """Turns driver errors inside the block into this module's; ``where`` names the database."""
    try:
        yield
    except SQLAlchemyError as error:
        raise as_store_error(error, where) from error
