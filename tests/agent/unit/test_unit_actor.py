"""The supervisor and its rank as real processes, without Ray."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from agent import control_folder, unit_actor
from agent.control_folder import ControlFolder, Phase
from agent.desired import UnitKey
from agent.processes import of_control_folder
from agent.unit_actor import StartRefusedError, UnitSpec, UnitSupervisor, child_environment
from tests.agent.ray.cluster import gone, until

KEY = UnitKey("job", 1, 0)
TINY = str(Path(unit_actor.__file__).parents[1] / "tests" / "agent" / "ray")
NOBODY = 65534
SYSTEM_PYTHON = Path("/usr/bin/python3")
"""An interpreter that every user may run; the one of the tests may lie in root's own folder."""
SUPERVISOR = """
import json, sys
from agent.unit_actor import UnitSupervisor
sys.executable = sys.argv[1]
print(json.dumps(UnitSupervisor().start(json.loads(sys.stdin.readline()))), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path: Path) -> ControlFolder:
    return ControlFolder(tmp_path, KEY)


def prepared(folder: ControlFolder, *wishes: str, steps: int = 1_000_000) -> UnitSpec:
    spec = {"command": {"program": list(wishes)}, "training": {"steps": steps}}
    folder.prepare(
        {"unit": 0, "attempt": 1, "bind_address": "127.0.0.1", "manifest": {"spec": spec}}
    )
    return UnitSpec(str(folder.path), "tiny_child", (("PYTHONPATH", TINY),))


def supervisor(spec: UnitSpec, python: str = sys.executable) -> subprocess.Popen[str]:
    """A supervisor in a process of its own, as in Ray."""
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, python],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(spec.to_json()) + "\n")
    process.stdin.flush()
    return process


def dismissed(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate("\n", timeout=60)
    return said


pytestmark = pytest.mark.process


def test_a_rank_is_seen_through_to_its_end(folder: ControlFolder) -> None:
    assert folder.observe().phase is Phase.UNCLAIMED
    process = supervisor(prepared(folder, steps=3))
    until("it has ended", lambda: folder.observe().phase is Phase.ENDED)
    assert dismissed(process).strip() == '""'
    assert folder.observe().ended == {"exit_code": 0}
    lines, offset = folder.progress_since(0)
    assert [line.step for line in lines] == [1, 2, 3]
    assert folder.progress_since(offset) == ([], offset)
    assert b"leaving as Succeeded" in (folder.path / "output.log").read_bytes()


def test_a_rank_dies_with_its_supervisor(folder: ControlFolder) -> None:
    process = supervisor(prepared(folder))
    until("it runs", lambda: folder.rendezvous())
    seen = folder.observe()
    assert seen.phase is Phase.RUNNING
    assert seen.rank is not None
    process.kill()
    process.communicate()
    until("the rank is dead", lambda: seen.rank and not seen.rank.alive)
    assert folder.observe().phase is Phase.VANISHED


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes of another user")
@pytest.mark.skipif(not SYSTEM_PYTHON.exists(), reason="needs a Python that every user may run")
def test_a_rank_of_another_user_dies_with_its_supervisor_too(folder: ControlFolder) -> None:
    """A change of user clears the death signal, so it must be asked for after it."""
    if any(not parent.stat().st_mode & 0o001 for parent in Path(__file__).parents):
        pytest.skip("another user cannot reach this checkout")
    for parent in folder.path.parents[2:]:
        if parent == Path(tempfile.gettempdir()):
            break
        parent.chmod(parent.stat().st_mode | 0o011)
    process = supervisor(replace(prepared(folder), run_as_uid=NOBODY), str(SYSTEM_PYTHON))
    until("it runs", lambda: folder.rendezvous())
    rank = folder.observe().rank
    assert rank is not None
    assert psutil.Process(rank.pid).uids().real == NOBODY
    process.kill()
    process.communicate()
    until("the rank is dead", lambda: not rank.alive)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes of another user")
def test_a_user_without_access_is_refused_with_what_would_help(
    folder: ControlFolder, tmp_path: Path
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o700)
    (locked / "python").symlink_to(sys.executable)
    process = supervisor(replace(prepared(folder), run_as_uid=NOBODY), str(locked / "python"))
    until("it is refused", lambda: folder.observe().phase is Phase.ENDED)
    dismissed(process)
    ended = folder.observe().ended
    assert ended is not None
    assert "leave --run-as-uid out" in ended["refused"]


def test_a_unit_is_started_at_most_once(folder: ControlFolder) -> None:
    spec = prepared(folder, steps=1)
    processes = [supervisor(spec) for _ in range(3)]
    until("it has ended", lambda: folder.observe().phase is Phase.ENDED)
    said = sorted(dismissed(process).strip() for process in processes)
    assert said[0] == '""'
    assert all("at most once" in text for text in said[1:])
    assert len((folder.path / "starts").read_text().splitlines()) == 1


def test_a_fenced_unit_does_not_start(folder: ControlFolder) -> None:
    spec = prepared(folder)
    assert folder.fence()
    assert "at most once" in dismissed(supervisor(spec))
    assert folder.observe().phase is Phase.FENCED
    assert not (folder.path / "starts").exists()


def test_children_that_left_the_session_go_too(folder: ControlFolder) -> None:
    process = supervisor(prepared(folder, "grandchild", steps=1))
    until("it has ended", lambda: folder.observe().phase is Phase.ENDED)
    pid = int((folder.path / "grandchild").read_text())
    assert not psutil.pid_exists(pid) or gone(psutil.Process(pid))
    dismissed(process)


def test_a_thread_that_may_end_cannot_start_a_rank(folder: ControlFolder) -> None:
    """The death signal comes when the forking thread ends, so it must be the main one."""
    raised: list[BaseException] = []

    def start() -> None:
        try:
            UnitSupervisor().start(prepared(folder).to_json())
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert len(raised) == 1
    assert folder.observe().phase is Phase.UNCLAIMED


def test_a_module_that_is_not_there_is_a_failed_rank(folder: ControlFolder) -> None:
    prepared(folder)
    process = supervisor(UnitSpec(str(folder.path), "no_such_module"))
    until("it has ended", lambda: folder.observe().phase is Phase.ENDED)
    dismissed(process)
    assert folder.observe().ended == {"exit_code": 1}
    assert b"no_such_module" in (folder.path / "output.log").read_bytes()


def test_an_end_that_cannot_be_written_yet_is_told_later(folder: ControlFolder) -> None:
    """As on a full disk: no output is kept, and the end waits until there is room."""
    spec = prepared(folder, steps=3)
    for name in ("output.log", "ended.json"):
        (folder.path / name).mkdir()
    process = supervisor(spec)
    until("the rank is done", folder.exit_statement)
    seen = folder.observe()
    assert seen.phase is Phase.RUNNING
    until("the rank is gone", lambda: seen.rank and not seen.rank.alive)
    (folder.path / "ended.json").rmdir()
    until("it has ended", lambda: folder.observe().phase is Phase.ENDED)
    assert folder.observe().ended == {"exit_code": 0}
    dismissed(process)


def test_a_rank_that_nobody_could_watch_does_not_run(folder: ControlFolder) -> None:
    spec = prepared(folder)
    (folder.path / "process.json").mkdir()
    process = supervisor(spec)
    until("it has ended", lambda: folder.observe().phase is Phase.ENDED)
    ended = folder.observe().ended
    assert ended is not None
    assert "cannot be written" in ended["refused"]
    dismissed(process)
    assert not list(of_control_folder(folder.path))


def test_only_one_claim_wins(tmp_path: Path) -> None:
    won: list[int] = []
    barrier = threading.Barrier(8)

    def compete(number: int) -> None:
        barrier.wait()
        if control_folder.claim(tmp_path, {"by": number}):
            won.append(number)

    threads = [threading.Thread(target=compete, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert control_folder.read_json(tmp_path / "claim") == {"by": won[0]}
    assert [path.name for path in tmp_path.iterdir()] == ["claim"]


@pytest.mark.parametrize(
    "name",
    ["RAY_ADDRESS", "HEADRACE_SECRETS_DIR", "KUBERNETES_SERVICE_HOST", "AGENT_TOKEN", "HF_API_KEY"],
)
def test_what_is_not_for_children_stays_here(name: str) -> None:
    inherited = {name: "x", "PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0"}
    made = child_environment(UnitSpec("/folder", "module"), inherited)
    assert made == {"PATH": "/bin", "HEADRACE_CONTROL_DIR": "/folder"}
    # What the manifest asks for by name is the user's own.
    wished = UnitSpec("/folder", "module", environment=((name, "mine"),))
    assert child_environment(wished, inherited)[name] == "mine"


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", "a\n"])
def test_secrets_cannot_reach_other_files(tmp_path: Path, name: str) -> None:
    spec = UnitSpec("/f", "m", secrets=(("X", name, "key"),), secrets_folder=str(tmp_path))
    with pytest.raises(StartRefusedError):
        child_environment(spec, {})


def test_a_missing_secret_is_told_with_the_file_that_it_belongs_into(tmp_path: Path) -> None:
    spec = UnitSpec("/f", "m", secrets=(("X", "hub", "token"),), secrets_folder=str(tmp_path))
    wanted = f"secret hub/token .*No such file.*into {tmp_path}/hub/token there"
    with pytest.raises(StartRefusedError, match=wanted):
        child_environment(spec, {})
    with pytest.raises(StartRefusedError, match=r"secret hub/token .*no secrets"):
        child_environment(replace(spec, secrets_folder=""), {})
