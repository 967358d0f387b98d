"""The suite's own guard fails a test that leaves a process behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT

LEAKING = """
import subprocess, sys
import pytest

@pytest.fixture(scope="session")
def server():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    process.stdin.close()

def test_that_uses_the_sessions_server(server):
    assert server.poll() is None

@pytest.mark.process
def test_that_leaks_a_child():
    global kept
    kept = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])

@pytest.mark.process
def test_that_leaks_a_grandchild_that_left():
    code = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', "
        "'import signal; signal.pause()'], start_new_session=True)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)

def test_that_cleans_up():
    subprocess.run([sys.executable, "-c", ""], check=True)
"""


@pytest.mark.process
def test_leftovers_fail_the_test_that_left_them(tmp_path: Path) -> None:
    conftest = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
    impatient = conftest.replace("GRACE_SECONDS = 15.0", "GRACE_SECONDS = 0.5")
    assert impatient != conftest
    (tmp_path / "conftest.py").write_text(impatient, encoding="utf-8")
    (tmp_path / "test_leaking.py").write_text(LEAKING, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = process: x\n", encoding="utf-8")

    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-p", "no:randomly", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        check=False,
        text=True,
    )

    errors = [line for line in ran.stdout.splitlines() if line.startswith("ERROR ")]
    assert [line.split("::")[1].split(" ")[0] for line in errors] == [
        "test_that_leaks_a_child",
        "test_that_leaks_a_grandchild_that_left",
    ], ran.stdout
    assert "left processes running" in ran.stdout
    assert "4 passed, 2 errors" in ran.stdout
