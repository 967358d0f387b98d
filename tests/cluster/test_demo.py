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
GPT_SCRIPT = Path(__file__).with_name("steps_for_a_guest.py")

pytestmark = [pytest.mark.process, pytest.mark.timeout(1200)]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A temporary folder for the demo, with a short name: Ray puts sockets below it."""
    folder = Path(tempfile.mkdtemp(prefix="hr-"))
    yield folder
    shutil.rmtree(folder)


def examples_for_a_test(folder: Path) -> Path:
    """The demo's own examples, in a folder of the test: the second job with fewer steps, the first
    one with steps that hardly take a core and last until the second one is done.
    """
    gpt, vit = (yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text()) for name in ("gpt", "vit"))
    for part in ("model", "data"):
        del gpt["spec"][part]
    gpt["spec"]["script"] = {"file": str(GPT_SCRIPT)}
    gpt["spec"]["plans"] = ["dp4", "dp2-z3", "dp1"]  # a script's layers are in no pipeline
    gpt["spec"]["training"]["steps"] = 300
    vit["spec"]["training"]["steps"] = 22
    for described in (gpt, vit):
        file = folder / f"{described['metadata']['name']}.yaml"
        file.write_text(yaml.safe_dump(described))
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
    assert re.findall(r"^(ok|FAILED) +\S", said, re.MULTILINE) == ["ok"] * 7, said
    told = " ".join(said.split())
    assert "gpt ran on 4, on 2 beside vit, and on 4 again" in told
    assert "gpt was reconfigured exactly twice while it ran, and nothing failed" in told
    assert "gpt went over to another kind of plan while it ran, and back" in told
    for job in ("gpt", "vit"):
        assert re.search(rf"{job} did every step from 1 to \d+ exactly once", told), told
    too_long = [one for one in said.splitlines() if len(one) > 80 and str(report) not in one]
    assert too_long == [], "\n".join(too_long)
    page = report.read_text(encoding="utf-8")
    curves = re.findall(r"Training loss of (\w+) from step (\d+) to (\d+)", page)
    assert {(job, first) for job, first, _ in curves} == {("gpt", "1"), ("vit", "1")}
    marked_changes = re.findall(
        r"<title>step [\d.]+: reconfigured in memory, (\S+) → ([-.\w]+)", page
    )
    assert marked_changes == [("dp4", "dp2-z3"), ("dp2-z3", "dp4")]
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
