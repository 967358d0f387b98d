"""The two ways in, as users and actors take them: whole new processes, nothing prepared."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from headrace.api.manifest import TrainingJob, parse
from headrace.api.runtime import refusals
from headrace.workloads.checkpoints import JobCheckpoints
from headrace.workloads.network import interface_of
from headrace.workloads.storage import LocalStorage
from tests.workloads.attempts import DEADLINE_SECONDS, a_manifest

ROOT = Path(__file__).parents[2]


def environment(**more: str) -> dict[str, str]:
    """Quiet, on the CPU, with one thread a rank."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **more}


def test_torchrun_trains_without_headrace(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(a_manifest(tmp_path / "store", steps=6)))
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node=2", "-m", "headrace.workloads.training"),
            *("--manifest", str(file), "--control-dir", str(tmp_path / "control")),
        ],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "control" / "exit.json").read_text())
    assert (found["outcome"], found["step"]) == ("Succeeded", 6)
    (checkpoint,) = JobCheckpoints(LocalStorage(tmp_path / "store"), "job").whole()
    assert (checkpoint.marker.step, checkpoint.marker.plan) == (6, "dp2")


def test_the_module_that_actors_start_ends_with_a_status(tmp_path: Path) -> None:
    launch = {
        "uid": "job-1",
        "attempt": 1,
        "unit": 0,
        "units_total": 1,
        "manifest": a_manifest(tmp_path / "store", steps=2),
        "plan": "dp1",
        "first_rank": 0,
        "ranks_total": 1,
        "a_key_of_a_later_release": True,
    }
    (tmp_path / "launch.json").write_text(json.dumps(launch))
    command = [sys.executable, "-m", "headrace.workloads.launch"]
    variables = environment(HEADRACE_CONTROL_DIR=str(tmp_path))
    done = subprocess.run(command, env=variables, cwd=ROOT, check=False, timeout=DEADLINE_SECONDS)
    assert done.returncode == 0
    assert json.loads((tmp_path / "exit.json").read_text())["outcome"] == "Succeeded"
    (tmp_path / "launch.json").write_text("{}")
    failed = subprocess.run(command, env=variables, cwd=ROOT, check=False, timeout=DEADLINE_SECONDS)
    assert failed.returncode == 1
    assert json.loads((tmp_path / "exit.json").read_text())["reason"] == "StartRefused"


def test_the_fast_parts_do_not_import_torch() -> None:
    code = (
        "import sys, headrace.train, headrace.workloads.launch, headrace.workloads.checkpoints\n"
        "from headrace.train import Settings\n"
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.long
def test_a_script_trains_without_headrace_and_goes_on_under_another_plan(tmp_path: Path) -> None:
    script = str(ROOT / "examples" / "own_code" / "digits.py")
    store = ["--checkpoints", str(tmp_path / "mixer"), "--width", "16"]
    by_torchrun = [*("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"), script]

    def trained(*command: str) -> str:
        ended = subprocess.run(
            [sys.executable, *command, *store],
            env=environment(PYTHONPATH=str(ROOT)),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_SECONDS,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    assert "step 20 of 20: loss" in trained(*by_torchrun, "--steps", "20", "--plan", "tp2")
    told = trained(script, "--steps", "22")
    assert "first step done: step 21" in told
    assert told.splitlines()[-1].endswith("of the held-out digits are read right")
    markers = [found.marker for found in JobCheckpoints(LocalStorage(tmp_path), "mixer").whole()]
    assert [(marker.step, marker.plan) for marker in markers] == [(20, "tp2"), (22, "dp1")]


@pytest.mark.parametrize("name", ["gpt", "vit", "own_code/digits"])
def test_the_examples_are_jobs_that_this_runtime_honours(name: str) -> None:
    job = parse(yaml.safe_load((ROOT / "examples" / f"{name}.yaml").read_text()))
    assert isinstance(job, TrainingJob), job
    assert refusals(job) == ()


def test_the_interface_of_an_address_is_found() -> None:
    assert interface_of("127.0.0.1") == interface_of("127.0.0.12")
    assert interface_of("127.0.0.1") in {name for _, name in socket.if_nameindex()}
    assert interface_of("192.0.2.1") is None  # reserved for documentation: nobody has it
