"""A restore that was killed between its renames: nothing of the old store gets into the new one."""

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.local_cluster import RESTORING, STORE, Wish
from headrace.cli.restore import set_store_aside
from headrace.cli.up import up

_WRITES_AND_DIES = """
import os, signal, sqlite3, sys
old = sqlite3.connect(sys.argv[1])
old.execute("PRAGMA journal_mode=WAL")
old.execute("CREATE TABLE t (x)")
old.execute("INSERT INTO t VALUES ('old')")
old.commit()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_log_of_the_old_store_follows_it_and_is_not_read_into_the_new_one(
    tmp_path: Path,
) -> None:
    store = tmp_path / STORE
    died = subprocess.run([sys.executable, "-c", _WRITES_AND_DIES, str(store)], check=False)
    assert died.returncode == -signal.SIGKILL
    store.rename(tmp_path / f"{STORE}.before-restore-1")  # and here the restore was killed
    kept = set_store_aside(tmp_path)
    assert kept == tmp_path / f"{STORE}.before-restore-1"
    assert list(tmp_path.glob(f"{STORE}-*")) == []
    with sqlite3.connect(kept) as old:
        assert old.execute("SELECT x FROM t").fetchall() == [("old",)]
    old.close()


def test_up_does_not_begin_anew_where_a_restore_was_cut_off(tmp_path: Path) -> None:
    (tmp_path / RESTORING).write_text("the new store")
    with pytest.raises(CommandError, match="`headrace restore` again") as refused:
        up(tmp_path, Wish(), foreground=False)
    assert refused.value.code is ExitCode.REFUSED
    assert sorted(path.name for path in tmp_path.iterdir()) == [RESTORING, "up.lock"]
