"""``headrace restore``: fills a database from a backup, while no control plane uses it."""

import subprocess
import sys
from pathlib import Path

from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.local_cluster import (
    RESTORING,
    STORE,
    Record,
    database_url,
    missing_packages,
    read_record,
    store_files,
    survivors,
)
from headrace.cli.output import note
from headrace.cli.up import alone

_SERVER_REFUSED = 2  # exit status of `python -m controlplane restore`


def restore_home(home: Path, backup: Path) -> None:
    """Puts the backup in the place of the local cluster's store, which is kept under another name.

    The store that is there is touched only when the new one is whole.

    Raises:
        CommandError: There is no such file, something of the cluster lives, or the backup is not
            whole; all is as it was.
        OSError: A file cannot be read or moved.
    """
    with alone(home):
        record = read_record(home)
        if record is not None:
            _refuse_while_used(home, record)
        _remove_unfinished(home)
        try:
            restore_database(backup, database_url(home, RESTORING))
        except BaseException:
            _remove_unfinished(home)
            raise
        kept = set_store_aside(home)
        # The log first: without it the database would not be whole.
        for file in reversed(store_files(home, RESTORING)):
            if file.exists():
                file.rename(home / file.name.replace(RESTORING, STORE, 1))
    if kept is not None:
        note(f"the store that was there is kept as {kept}")


def _refuse_while_used(home: Path, record: Record) -> None:
    left = survivors(record, home)
    if record.supervised:
        told = "is running on that store"
    elif left:
        count = "a process" if len(left) == 1 else f"{len(left)} processes"
        told = f"has lost its supervisor and left {count} behind"
    else:
        return
    raise CommandError(ExitCode.REFUSED, f"the cluster of {home} {told}; `headrace down` first")


def restore_database(backup: Path, url: str) -> None:
    """Fills the empty database at ``url`` by the server's own program.

    Raises:
        CommandError: There is no such file, it refused, in its own words, or it is not installed
            here.
        OSError: The backup cannot be read.
    """
    if missing_packages(["controlplane"]):
        raise CommandError(
            ExitCode.FAILED,
            "this needs controlplane, not installed here: pip install headrace-server",
        )
    if not backup.exists():
        raise CommandError(
            ExitCode.USAGE,
            f"{backup}: there is no such file; wanted what `headrace backup FILE` wrote",
        )
    backup.open("rb").close()
    command = [sys.executable, "-m", "controlplane", "restore"]
    ended = subprocess.run(
        [*command, "--from", str(backup), "--database-url", url],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    told = ended.stderr.strip()
    if ended.returncode:
        code = ExitCode.REFUSED if ended.returncode == _SERVER_REFUSED else ExitCode.FAILED
        raise CommandError(code, f"{backup}: {told or 'nothing was restored'}")
    if told:
        note(told)


def set_store_aside(home: Path) -> Path | None:
    """Makes room for a store, and returns where the one that was there is kept."""
    there = [file for file in store_files(home) if file.exists()]
    if not there:
        return None
    number = 1
    while (home / f"{STORE}.before-restore-{number}").exists():
        number += 1
    if not (home / STORE).exists():
        # A restore was cut off after it had moved the database: its log belongs to that one, and
        # SQLite would put what stands in it into the new one.
        number = max(1, number - 1)
    kept = home / f"{STORE}.before-restore-{number}"
    for file in there:
        # SQLite finds its write-ahead log by the database's name, so both get the new one.
        file.rename(home / file.name.replace(STORE, kept.name, 1))
    return kept


def _remove_unfinished(home: Path) -> None:
    for file in store_files(home, RESTORING):
        file.unlink(missing_ok=True)
