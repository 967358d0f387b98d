"""Programs of the user's own: what they are told, how they are stopped, how they end."""

import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.api.addresses import LISTENING_PORTS
from headrace.api.variables import RESERVED_VARIABLES
from headrace.workloads.command import expanded, variables, with_own_programs
from headrace.workloads.control import Launch
from tests.workloads.attempts import Agent, alive, until

TELLS = """
import os, sys
names = "MASTER_ADDR NNODES NODE_RANK NPROC_PER_NODE WORLD_SIZE RANK PET_NNODES".split()
print({name: os.environ[name] for name in names}, os.getcwd(), sys.argv[1:], flush=True)
"""
WAITS = """
import signal, sys, pathlib
def stop(number, frame):
    pathlib.Path("saved").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
pathlib.Path("started").touch()
signal.pause()
"""
ADDS = """
import os, torch, torch.distributed as dist
dist.init_process_group("gloo")
ones = torch.ones(1)
dist.all_reduce(ones)
print("sum over", dist.get_world_size(), "is", int(ones), flush=True)
"""


def a_command(*program: str, **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "headrace.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "mine"},
        "spec": {"command": {"program": list(program), **more}},
    }


def test_no_manifest_may_name_what_a_program_is_told() -> None:
    launch = Launch("u", 1, 0, 1, "j", {}, "", 0, 1, ("s",), "cpu", (), "", "127.0.0.1")
    assert set(variables(launch, "127.0.0.1", 29500)) <= RESERVED_VARIABLES


def test_a_program_is_told_where_it_stands(agent: Agent, tmp_path: Path) -> None:
    job = a_command(
        sys.executable, "-c", TELLS, "port $(MASTER_PORT)", workingDirectory=str(tmp_path)
    )
    run = agent.start(job, 2, accelerators_each=2)
    assert run.outcomes() == {("Succeeded", 0)}
    ports = set()
    for index, unit in enumerate(run.units):
        assert f"'NNODES': '2', 'NODE_RANK': '{index}', 'NPROC_PER_NODE': '2'" in unit.output
        assert f"'WORLD_SIZE': '4', 'RANK': '{2 * index}', 'PET_NNODES': '2'" in unit.output
        assert "'MASTER_ADDR': '127.0.0.1'" in unit.output
        assert str(tmp_path) in unit.output
        ports.add(unit.output.partition("port ")[2].partition("'")[0])
    (port,) = ports
    assert int(port) in LISTENING_PORTS


def test_a_program_builds_its_own_process_group(agent: Agent) -> None:
    run = agent.start(a_command(sys.executable, "-c", ADDS), 2)
    assert run.outcomes() == {("Succeeded", 0)}
    assert all("sum over 2 is 2" in unit.output for unit in run.units)


def test_a_stop_reaches_the_program_as_sigterm(agent: Agent, tmp_path: Path) -> None:
    job = a_command(sys.executable, "-c", WAITS, workingDirectory=str(tmp_path))
    run = agent.start(job)
    until((tmp_path / "started").exists, lambda: run.units[0].output)
    assert run.stop().outcomes() == {("Stopped", 0)}
    assert (tmp_path / "saved").exists()


def test_a_program_that_ends_badly_because_it_was_stopped_has_not_failed(
    agent: Agent, tmp_path: Path
) -> None:
    # As torchrun does.
    code = WAITS.replace("sys.exit(0)", "sys.exit(1)")
    run = agent.start(a_command(sys.executable, "-c", code, workingDirectory=str(tmp_path)))
    until((tmp_path / "started").exists, lambda: run.units[0].output)
    assert run.stop().outcomes() == {("Stopped", 0)}


def test_a_program_does_not_outlive_its_unit(agent: Agent, tmp_path: Path) -> None:
    code = "import os, signal; open('pid', 'w').write(f'{os.getpid()}\\n'); signal.pause()"
    run = agent.start(a_command(sys.executable, "-c", code, workingDirectory=str(tmp_path)))
    file = tmp_path / "pid"
    until(lambda: file.exists() and file.read_text().endswith("\n"), lambda: "pid")
    run.units[0].kill()
    until(lambda: not alive(int(file.read_text())), lambda: "end of the program")


@pytest.mark.parametrize(
    ("program", "reason", "sentence"),
    [
        (("false",), "RankFailed", "exit status 1"),
        (("sh", "-c", "kill -SEGV $$$$"), "RankFailed", "signal SIGSEGV"),
        (("no-such-program",), "StartRefused", "no-such-program cannot be started"),
    ],
)
def test_a_program_that_fails_says_how(
    agent: Agent, program: tuple[str, ...], reason: str, sentence: str
) -> None:
    (found,) = agent.start(a_command(*program)).exits()
    assert (found["outcome"], found["reason"]) == ("Failed", reason)
    assert sentence in found["message"]


def test_variables_are_expanded_as_in_kubernetes() -> None:
    known = {"PORT": "29500"}
    assert expanded("a:$(PORT)/$(PORT)", known) == "a:29500/29500"
    assert expanded("$(UNKNOWN) $PORT", known) == "$(UNKNOWN) $PORT"
    assert expanded("$$(PORT)", known) == "$(PORT)"


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("$(PORT)/$(PORT)", "29500/29500"),
        ("[$(EMPTY)]", "[]"),
        ("$(SAME)", "$(PORT)"),
        ("$$PORT", "$PORT"),
        ("$$(PORT) $$$(PORT) $$$$(PORT)", "$(PORT) $29500 $$(PORT)"),
        ("kill $$$$", "kill $$"),
        ("$${#TOK} ${#TOK} $? $", "${#TOK} ${#TOK} $? $"),
        ("$(date +%s) $$(date +%s)", "$(date +%s) $(date +%s)"),
        ("$(echo $$)", "$(echo $$)"),
        ("$(echo $(PORT))", "$(echo $(PORT))"),
        ("$(PORT", "$(PORT"),
    ],
)
def test_dollars_are_read_as_kubernetes_reads_them(text: str, becomes: str) -> None:
    known = {"PORT": "29500", "SAME": "$(PORT)", "EMPTY": ""}
    assert expanded(text, known) == becomes


def test_torchrun_is_found_although_nobody_activated_the_environment() -> None:
    own = str(Path(sys.executable).parent)
    assert with_own_programs({"PATH": "/bin"})["PATH"] == f"/bin:{own}"
    assert with_own_programs({"PATH": f"{own}:/bin"})["PATH"] == f"{own}:/bin"
    assert with_own_programs({})["PATH"].endswith(f":{own}")
