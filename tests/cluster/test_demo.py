"""``headrace demo``, the README's first command: whole, and interrupted."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from headrace.api.visible_gpus import VARIABLE
from headrace.cli.exit_codes import ExitCode
from headrace.cli.local_cluster import read_record, survivors
from tests.cluster.local_cluster import PATIENCE_SECONDS, until

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = [pytest.mark.process, pytest.mark.long, pytest.mark.timeout(1200)]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A temporary folder for the demo, with a short name: Ray puts sockets below it."""
    folder = Path(tempfile.mkdtemp(prefix="hr-"))
    yield folder
    shutil.rmtree(folder)


def examples_for_a_test(folder: Path) -> Path:
    """The demo's own examples, in a folder of the test, with fewer steps: the machine does much
    else.
    """
    # However long a rank takes to start, the first job still has steps left to make room in.
    for name, steps in (("gpt", 400), ("llama", 60), ("vit", 120)):
        described = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
        described["spec"]["training"]["steps"] = steps
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(described))
    return folder


def a_demo(temporary: Path, *arguments: str) -> "subprocess.Popen[str]":
    """The command in a pipe, as in CI, on CPU slots, with a temporary folder of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "headrace.cli.main", "demo", *arguments],
        env={**os.environ, "TMPDIR": str(temporary), "COLUMNS": "80", VARIABLE: ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell makes what it starts in the background, which may be these tests, deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_the_demo_passes_its_own_checks_and_leaves_a_report_and_nothing_else(
    temporary: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    examples = examples_for_a_test(tmp_path)
    # For a machine that does much else; nothing of the demo takes so long.
    limit = 3 * PATIENCE_SECONDS
    demo = a_demo(
        temporary,
        f"--report={report}",
        f"--examples={examples}",
        f"--limit={limit}",
    )
    said, noted = demo.communicate(timeout=4 * PATIENCE_SECONDS)
    assert demo.returncode == 0, said + noted
    assert re.findall(r"^(ok|FAILED) +\S", said, re.MULTILINE) == ["ok"] * 11, said
    told = " ".join(said.split())
    assert "the policy rubick chooses plans and accelerators" in told
    assert "gpt went over to another kind of plan in memory while it trained" in told
    assert "llama, which is guaranteed, was never stopped" in told
    assert "what steps take was learnt on the spot from the steps of each job" in told
    assert "what was told of ends, and what came true" in told
    assert "broke a rule: capacity, gangs, quotas, promises, cool-down (0 decisions" in told
    for job, about in (("gpt", "gpt2-small"), ("llama", "llama-tiny"), ("vit", "vit-tiny")):
        assert re.search(rf"{job} did every step from 1 to \d+ exactly once", told), told
        assert f" explain {job}" in told
        assert re.search(rf"^{about} +\S+ +\S+ +[\d.]+ +[\d.]+ ", said, re.MULTILINE), said
    assert "It is promised" in told
    assert re.search(r"predicted from \d plans? of gpt2-small measured here", told)
    too_long = [one for one in said.splitlines() if len(one) > 80 and str(report) not in one]
    assert too_long == [], "\n".join(too_long)
    page = report.read_text(encoding="utf-8")
    curves = re.findall(r"Training loss of (\w+) from step (\d+) to (\d+)", page)
    assert {(job, first) for job, first, _ in curves} == {
        ("gpt", "1"),
        ("llama", "1"),
        ("vit", "1"),
    }
    changes = re.findall(r"<title>step [\d.]+: reconfigured in memory, (\S+) → ([-.\w]+)", page)
    assert ("dp4", "pp2.1f1b-ga4") in changes
    assert re.findall(r"<script|\bsrc=|\bhref=|url\((?!#)|@import", page) == []
    # What it started has ended (tests/conftest.py looks), and the folders that it made are gone.
    assert list(temporary.glob("headrace-*")) == []


def test_an_interrupted_demo_ends_what_it_started_and_says_where_its_logs_are(
    temporary: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    demo = a_demo(temporary, f"--report={report}")
    (home,) = until("it makes its folder", lambda: list(temporary.glob("headrace-demo-*")))
    until("parts are started", lambda: (known := read_record(home)) and known.parts)
    record = read_record(home)
    assert record is not None
    demo.send_signal(signal.SIGINT)
    _, noted = demo.communicate(timeout=PATIENCE_SECONDS)
    assert demo.returncode == ExitCode.INTERRUPTED
    assert f"the logs are in {home}" in noted.splitlines()
    assert "interrupted" in noted.splitlines()[-1]
    assert survivors(record, home) == []
    assert list(temporary.glob("headrace-*")) == [home]
    assert (home / "logs" / "supervisor.log").exists()
    assert not report.exists()
