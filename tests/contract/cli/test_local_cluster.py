"""The local cluster's keeper with real, small processes in place of Ray and the agents."""

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace.api.processes import Process, process
from headrace.cli import up as work
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.local_cluster import (
    Layout,
    Part,
    Record,
    RunningPart,
    Wish,
    claim_ray_folder,
    lay_out,
    read_record,
    remove_ray_folder,
    survivors,
    write_record,
)
from headrace.cli.output import Format
from headrace.cli.ports import Ports
from headrace.cli.processes import marked
from headrace.cli.restore import restore_home, set_store_aside
from headrace.cli.supervisor import Supervisor
from headrace.cli.up import down, status, stay
from headrace.client.context import read

pytestmark = pytest.mark.process

READY = "print('ready', flush=True); import signal; signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "import subprocess, sys\n"
    "subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'], "
    "start_new_session=True)\n" + READY
)


def a_part(name: str, program: str = READY, needs: tuple[str, ...] = ()) -> Part:
    return Part(name, (sys.executable, "-c", program), "ready", needs)


def a_layout(home: Path, *parts: Part) -> Layout:
    with Ports() as ports:
        real = lay_out(home, Wish(), f"cluster-of-{home.name}", ports)
    return replace(real, parts=parts, nodes={})


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.02)


class Kept:
    """A supervisor that runs in a thread of the test."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        record = Record(layout.id, "starting", ray_folder=str(layout.ray_folder))
        self.supervisor = Supervisor(layout, record, reap=self._reap)
        self.status: int | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        self.status = self.supervisor.run()

    def _reap(self) -> None:
        """Only its own children: the test session has others."""
        for part in self.supervisor.record.parts:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(part.process.pid, os.WNOHANG)

    @property
    def record(self) -> Record:
        found = read_record(self.layout.home)
        return found if found is not None else Record("", "none")

    def pid(self, name: str) -> Process:
        return next(part.process for part in self.record.parts if part.name == name)

    def end(self) -> int | None:
        self.supervisor.stopping = True
        self.thread.join()
        return self.status


@pytest.fixture
def keep() -> Iterator[Callable[[Layout], Kept]]:
    running: list[Kept] = []

    def start(layout: Layout) -> Kept:
        running.append(Kept(layout))
        return running[-1]

    yield start
    for each in running:
        each.end()


def test_parts_start_in_order_are_restarted_and_end_whole(
    tmp_path: Path, keep: Callable[[Layout], Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.cli.teardown._AGENT_SECONDS", 0.5)
    cluster = keep(a_layout(tmp_path, a_part("ray"), a_part("agent-x", STUBBORN, needs=("ray",))))
    until(lambda: cluster.record.state == "ready")
    context = read(tmp_path)
    assert context is not None
    assert context.local
    # Killed, it comes back under another pid, and that is recorded.
    before = cluster.pid("ray")
    before.signal(signal.SIGKILL)
    until(
        lambda: any(p.name == "ray" and p.restarts == 1 and p.ready for p in cluster.record.parts)
    )
    assert cluster.pid("ray") != before
    assert len(survivors(cluster.record, tmp_path)) == 3
    # What ignores SIGTERM, and what it started in a session of its own, ends all the same.
    assert cluster.end() == 0
    assert cluster.record.state == "stopped"
    assert survivors(replace(cluster.record, id=cluster.layout.id), tmp_path) == []
    assert read(tmp_path) is None


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("print('no such port'); raise SystemExit(3)", "no such port"),
        ("raise SystemExit(3)", "wrote nothing"),
    ],
)
def test_a_failed_start_tells_the_last_lines_and_leaves_nothing(
    tmp_path: Path, keep: Callable[[Layout], Kept], program: str, words: str
) -> None:
    cluster = keep(a_layout(tmp_path, a_part("ray"), a_part("controlplane", program)))
    cluster.thread.join()
    assert cluster.status == 1
    assert cluster.record.state == "failed"
    assert "controlplane ended while it was starting" in cluster.record.message
    assert words in cluster.record.message
    assert marked(cluster.layout.marks) == []


@pytest.mark.parametrize(("tries", "state"), [(2, "failed"), (3, "ready")])
def test_a_part_may_be_started_as_often_as_it_says(
    tmp_path: Path, keep: Callable[[Layout], Kept], tries: int, state: str
) -> None:
    """The program gives up twice before it comes up, as Ray does on a busy machine."""
    counted = (
        f"from pathlib import Path; seen = Path({str(tmp_path / 'seen')!r})\n"
        "seen.open('a').write('x')\n"
        "if len(seen.read_text()) < 3: raise SystemExit(1)\n" + READY
    )
    slow = replace(a_part("ray", counted), start_tries=tries)
    cluster = keep(a_layout(tmp_path, slow))
    until(lambda: cluster.record.state == state)
    assert (tmp_path / "seen").read_text() == "x" * tries
    cluster.end()
    assert marked(cluster.layout.marks) == []


def test_a_command_that_is_not_there_fails_the_start(
    tmp_path: Path, keep: Callable[[Layout], Kept]
) -> None:
    missing = Part("ray", (str(tmp_path / "no-such-program"),), "ready")
    cluster = keep(a_layout(tmp_path, a_part("controlplane"), missing))
    cluster.thread.join()
    assert cluster.status == 1
    assert "no-such-program" in cluster.record.message
    assert marked(cluster.layout.marks) == []


def test_down_ends_one_home_and_not_the_other(
    tmp_path: Path, keep: Callable[[Layout], Kept]
) -> None:
    one, two = (keep(a_layout(tmp_path / name, a_part("ray"))) for name in ("one", "two"))
    until(lambda: one.record.state == two.record.state == "ready")
    assert one.end() == 0
    assert marked(one.layout.marks) == []
    assert two.pid("ray").alive
    assert two.end() == 0


def test_down_ends_what_a_lost_supervisor_left_but_no_process_that_got_its_pid(
    tmp_path: Path,
) -> None:
    layout = a_layout(tmp_path)
    stranger = subprocess.Popen([sys.executable, "-c", READY], stdout=subprocess.DEVNULL)
    left = subprocess.Popen(
        [sys.executable, "-c", READY],
        env={**os.environ, **layout.environment},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    known = process(stranger.pid)
    assert known is not None
    # The record names the stranger's pid with another start: the pid was used again.
    reused = Process(known.pid, known.start_ticks - 1)
    write_record(tmp_path, Record(layout.id, "ready", supervisor=reused))
    until(lambda: len(marked(layout.marks)) == 1)
    try:
        down(tmp_path)
        assert left.wait(timeout=60) == -signal.SIGTERM
        assert stranger.poll() is None
    finally:
        for each in (stranger, left):
            each.kill()
            each.wait()


def test_down_says_so_where_nothing_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    down(tmp_path)
    assert "no cluster was started" in capsys.readouterr().err


def test_two_homes_share_no_port_and_no_address(tmp_path: Path) -> None:
    with Ports() as ports, Ports() as others:
        one = lay_out(tmp_path / "one", Wish(nodes=3), "one", ports)
        two = lay_out(tmp_path / "two", Wish(nodes=3), "two", others)
    assert set(one.endpoints.values()).isdisjoint(two.endpoints.values())
    assert [part.name for part in one.parts] == [
        "ray", "controlplane", "agent-node-a", "agent-node-b", "agent-node-c",
    ]  # fmt: skip
    assert one.endpoints["ray"].startswith("127.")
    folders = {flags[flags.index("--state-dir") + 1] for flags in one.nodes.values()}
    assert len(folders) == 3


def test_rays_longest_socket_has_room_below_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = "session_2026-11-26_18-04-40_123456_4194304/sockets/dash_MetricsHead"
    for temporary in ("/tmp", "/tmp/hr-07mmv8m1", "/var/folders/of/somebody/with/a/long/name"):
        monkeypatch.setattr("tempfile.tempdir", temporary)
        for home in (Path("/h"), tmp_path / "a-home-with-a-long-name", Path("/srv/so-so/long")):
            with Ports() as ports:
                folder = lay_out(home, Wish(), "c", ports).ray_folder
            assert len(str(folder / socket)) <= 107


@pytest.mark.parametrize(
    ("name", "longest"),
    [("a-home-whose-path-is-too-long-for-rays-sockets" * 2, 150), ("not-äscii", 1000)],
)
def test_rays_folder_outside_the_home_is_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, longest: int
) -> None:
    monkeypatch.setattr("headrace.cli.local_cluster._LONGEST_RAY_FOLDER", longest)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    home = tmp_path / name
    with Ports() as ports:
        one, two = (lay_out(home, Wish(), "c", ports).ray_folder for _ in range(2))
    assert one.parent != two.parent  # so nobody can be there first
    claim_ray_folder(one, home)
    assert stat.S_IMODE(one.parent.stat().st_mode) == 0o700
    assert one.parent.parent == tmp_path
    with pytest.raises(FileExistsError):
        claim_ray_folder(one, home)
    one.mkdir()
    remove_ray_folder(Record("c", "stopped", ray_folder=str(one)))
    assert list(tmp_path.iterdir()) == []
    # One of an earlier release lay in the temporary folder itself.
    (tmp_path / "headrace-0").mkdir()
    remove_ray_folder(Record("c", "stopped", ray_folder=str(tmp_path / "headrace-0")))
    assert tmp_path.exists()


def test_gpus_are_dealt_to_the_nodes(tmp_path: Path) -> None:
    with Ports() as ports:
        layout = lay_out(tmp_path, Wish(nodes=2, gpus=("GPU-1", "GPU-2", "GPU-3")), "c", ports)
    offered = [
        part.command[part.command.index("--accelerators") + 1]
        for part in layout.parts
        if part.name.startswith("agent-")
    ]
    assert offered == ["GPU-1,GPU-2", "GPU-3"]


def test_a_store_is_kept_when_another_takes_its_place(tmp_path: Path) -> None:
    assert set_store_aside(tmp_path) is None
    for number in (1, 2):
        (tmp_path / "headrace.db").write_text("store")
        (tmp_path / "headrace.db-wal").write_text("log")
        kept = set_store_aside(tmp_path)
        assert kept == tmp_path / f"headrace.db.before-restore-{number}"
        assert Path(f"{kept}-wal").read_text() == "log"
    assert not list(tmp_path.glob("headrace.db"))


def test_nothing_is_restored_below_what_a_lost_supervisor_left(tmp_path: Path) -> None:
    (tmp_path / "headrace.db").write_text("store")
    layout = a_layout(tmp_path)
    write_record(tmp_path, Record(layout.id, "ready"))
    left = subprocess.Popen(
        [sys.executable, "-c", READY],
        env={**os.environ, **layout.environment},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: len(marked(layout.marks)) == 1)
        with pytest.raises(CommandError, match="supervisor and left a process behind") as refused:
            restore_home(tmp_path, tmp_path / "backup")
        assert refused.value.code is ExitCode.REFUSED
        write_record(tmp_path, Record(layout.id, "ready", supervisor=process(os.getpid())))
        with pytest.raises(CommandError, match="is running on that store; `headrace down` first"):
            restore_home(tmp_path, tmp_path / "backup")
        assert (tmp_path / "headrace.db").read_text() == "store"
    finally:
        left.kill()
        left.wait()


def test_ctrl_c_in_the_foreground_says_what_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = subprocess.Popen([sys.executable, "-c", READY], stdout=subprocess.DEVNULL)
    write_record(tmp_path, Record("c", "ready", supervisor=process(child.pid)))
    presses = iter([False, True, False, False])

    def pressed(home: Path) -> Record | None:
        if next(presses):
            raise KeyboardInterrupt
        return read_record(home)

    monkeypatch.setattr("headrace.cli.up.read_record", pressed)
    reaping = threading.Thread(target=child.wait)
    reaping.start()
    try:
        with pytest.raises((CommandError, KeyboardInterrupt)) as ended:
            stay(tmp_path)
        assert isinstance(ended.value, CommandError)
        assert ended.value.code is ExitCode.INTERRUPTED
        assert "interrupted; the cluster has ended" in str(ended.value)
    finally:
        child.kill()
        reaping.join()


def test_status_shows_whole_paths_in_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    home = tmp_path / "a-home-whose-name-alone-is-almost-as-wide-as-the-terminal" / "headrace"
    this = process(os.getpid())
    assert this is not None
    log = home / "logs" / "controlplane.log"
    part = RunningPart("controlplane", this, str(log), ready=True)
    write_record(home, Record("c", "ready", supervisor=this, parts=(part,)))
    status(home, Format.TABLE)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"home: {home}"
    assert lines[4].endswith("  logs/controlplane.log")
    assert max(map(len, lines[1:])) <= 80
    status(home, Format.JSON)
    assert json.loads(capsys.readouterr().out)["parts"][1]["log"] == str(log)


def test_a_part_that_is_down_keeps_its_place_and_is_said_to_restart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    this = process(os.getpid())
    assert this is not None
    gone = Process(this.pid, this.start_ticks - 1)
    up, down = (RunningPart(name, this, "", ready=True) for name in ("ray", "controlplane"))
    record = Record("c", "ready", supervisor=this, parts=(up, down))
    record = record.with_part(replace(up, process=gone, ready=False, restarts=1))

    def shown(record: Record) -> list[tuple[str, str]]:
        write_record(tmp_path, record)
        status(tmp_path, Format.JSON)
        parts = json.loads(capsys.readouterr().out)["parts"]
        return [(part["part"], part["state"]) for part in parts]

    assert shown(record) == [
        ("supervisor", "ready"), ("ray", "restarting"), ("controlplane", "ready"),
    ]  # fmt: skip
    assert ("ray", "dead") in shown(replace(record, state="stopping"))
    assert ("ray", "dead") in shown(replace(record, supervisor=gone))


def test_up_says_what_to_type_next_in_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(work, "_NEEDED", ())
    monkeypatch.setattr(work, "typed", lambda: "uv run headrace")
    write_record(tmp_path, Record("c", "ready", supervisor=process(os.getpid())))
    work.up(tmp_path, Wish(), foreground=False)
    next_, then, end = capsys.readouterr().out.splitlines()[-3:]
    assert max(map(len, (next_, then, end))) <= 80
    assert next_.split() == ["next:", "uv", "run", "headrace", "apply", "-f", "examples/"]
    assert (then.split()[-1], end.split()[-1]) == ("top", "down")


def test_up_says_that_down_has_ended_what_it_was_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = subprocess.Popen

    def ended_by_down(_command: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        write_record(tmp_path, Record("c", "stopped"))
        return real([sys.executable, "-c", ""], **options)

    monkeypatch.setattr("headrace.cli.up.subprocess.Popen", ended_by_down)
    monkeypatch.setattr(work, "_NEEDED", ())
    with pytest.raises(CommandError, match="ended while it was starting, by `headrace down`"):
        work.up(tmp_path, Wish(), foreground=False)


def test_sigterm_while_it_starts_ends_all_that_was_started(tmp_path: Path) -> None:
    starting = subprocess.Popen(
        [sys.executable, "-m", "headrace.cli.main", "up", "--cpu", "--no-dashboard"],
        env={**os.environ, "HEADRACE_HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
    )
    until(lambda: bool((record := read_record(tmp_path)) and record.parts))
    record = read_record(tmp_path)
    assert record is not None
    starting.send_signal(signal.SIGTERM)
    told = starting.communicate(timeout=60)[1]
    assert starting.returncode == ExitCode.INTERRUPTED
    assert told.splitlines()[-2] == b"ending what was started ..."
    assert told.splitlines()[-1].startswith(
        b"headrace: interrupted; what was started of the cluster has ended, "
    )
    assert survivors(record, tmp_path) == []
    assert record.supervisor is not None
    assert not record.supervisor.alive


def test_what_is_not_installed_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_NEEDED", ("no_such_package_of_headrace",))
    with pytest.raises(CommandError, match="no_such_package_of_headrace"):
        work.up(tmp_path, Wish(), foreground=False)
    assert read_record(tmp_path) is None
