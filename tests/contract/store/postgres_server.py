"""A PostgreSQL server of one's own, from the system's binaries, reached by a Unix socket."""

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg

_SUPERUSER = "postgres"
_START_SECONDS = 60


def binaries() -> Path | None:
    """Where initdb and postgres are; None if PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def _account() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


class PostgresServer:
    """A server with a folder of its own; made by ``start``, gone after ``remove``."""

    def __init__(self, folder_of_binaries: Path) -> None:
        self._binaries = folder_of_binaries
        self._account = _account()
        # Not below pytest's folder: only its owner can enter that.
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-pg-"))
        if self._account:
            shutil.chown(self._folder, self._account)
        self._server: subprocess.Popen[bytes] | None = None
        self._names = (f"store_{number}" for number in itertools.count())
        initdb = f"{self._binaries}/initdb"
        settings = ("-A", "trust", "--no-sync", "--locale=C.UTF-8", "-E", "UTF8")
        subprocess.run(
            [initdb, "-D", f"{self._folder}/data", "-U", _SUPERUSER, *settings],
            user=self._account,
            cwd=self._folder,
            check=True,
            capture_output=True,
        )

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._folder),
            # These two would start processes whenever they like.
            "autovacuum": "off",
            "max_parallel_workers_per_gather": "0",
            "max_connections": "40",
            # These tests kill processes, not the machine: what was written survives that, and a
            # busy disk does not slow the whole run down.
            "fsync": "off",
        }
        options = [part for item in settings.items() for part in ("-c", "=".join(item))]
        # It ends with its starter, also when that one is killed.
        guard = ["setpriv", "--pdeathsig", "QUIT"] if shutil.which("setpriv") else []
        with (self._folder / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                [*guard, self._binaries / "postgres", "-D", self._folder / "data", *options],
                user=self._account,
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.crash()
            raise

    def _wait_until_it_answers(self) -> None:
        subprocess.run(
            [
                "sh",
                "-c",
                f'until "{self._binaries}/pg_isready" -q -h "{self._folder}"; do sleep 0.05; done',
            ],
            check=True,
            timeout=_START_SECONDS,
        )

    def crash(self) -> None:
        """Ends the server at once, as a power cut would for its clients."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(_START_SECONDS)
            self._server = None

    def remove(self) -> None:
        """Ends the server and removes its folder."""
        self.crash()
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self) -> str:
        """URL of an empty database."""
        name = next(self._names)
        with psycopg.connect(
            host=str(self._folder), user=_SUPERUSER, dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://{_SUPERUSER}@/{name}?host={self._folder}"
