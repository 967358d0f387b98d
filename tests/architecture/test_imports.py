"""The import contracts of pyproject.toml hold, and each of them can fail."""

import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.architecture.source_tree import PACKAGES, ROOT, repository_files


@dataclass(frozen=True, slots=True)
class Plant:
    """One line that must not be in one file.

    Attributes:
        contract: Who must notice.
        path: The file that gets the line; a new one if there is none.
        line: The violation.
    """

    contract: str
    path: str
    line: str


_KUBERNETES = "only operators know Kubernetes, and one door of the client"
PLANTS = [
    Plant(
        "the control plane is layered", "controlplane/domain/job.py", "import controlplane.engine"
    ),
    Plant(
        "the control plane is layered",
        "controlplane/wire/translate.py",
        "import controlplane.edges",
    ),
    Plant(
        "the control plane is layered",
        "controlplane/engine/loop.py",
        "import controlplane.baselines",
    ),
    Plant(
        "the control plane is layered", "controlplane/baselines/fifo.py", "import controlplane.wire"
    ),
    Plant(
        "the control plane is layered",
        "controlplane/rubick/priors.py",
        "import controlplane.baselines",
    ),
    Plant("the control plane is layered", "controlplane/helpers.py", ""),
    Plant("the public package is layered", "headrace/api/plan.py", "import headrace.client"),
    Plant(
        "the public package is layered", "headrace/client/__init__.py", "import headrace.workloads"
    ),
    Plant("the public package is layered", "headrace/train/__init__.py", "import headrace.cli"),
    Plant("the public package is layered", "headrace/extras.py", ""),
    Plant(
        "the public package knows nothing of the server side",
        "headrace/cli/main.py",
        "def up(): import controlplane.main",
    ),
    Plant(
        "the public package knows nothing of the server side",
        "headrace/workloads/control.py",
        "from agent import desired",
    ),
    Plant("processes do not import each other", "controlplane/main.py", "import simulator"),
    Plant("processes do not import each other", "controlplane/main.py", "import agent.desired"),
    Plant("processes do not import each other", "controlplane/main.py", "import operators.crds"),
    Plant(
        "agent, operators and simulator do not import each other",
        "simulator/run.py",
        "import agent.desired",
    ),
    Plant(
        "agent, operators and simulator do not import each other",
        "operators/crds/rule.py",
        "import agent.desired",
    ),
    Plant(
        "operators share only the nouns and talk to the control plane as clients",
        "operators/crds/rule.py",
        "import controlplane.wire.status",
    ),
    Plant(_KUBERNETES, "controlplane/main.py", "import kubernetes"),
    Plant(_KUBERNETES, "headrace/cli/apply.py", "import kubernetes.client"),
    Plant("only the store knows SQL", "operators/crds/rule.py", "import sqlite3"),
    Plant("deciding is pure", "controlplane/domain/job.py", "import time"),
    Plant("deciding is pure", "controlplane/engine/cycle.py", "from datetime import datetime"),
    Plant("deciding is pure", "controlplane/placing/order.py", "import random as luck"),
    Plant("deciding is pure", "controlplane/engine/fold.py", "import logging"),
    Plant("deciding is pure", "controlplane/engine/loop.py", "import asyncio"),
    Plant("deciding is pure", "agent/desired.py", "import os.path"),
    Plant("deciding is pure", "controlplane/rubick/fitting.py", "import random"),
    Plant(
        "the performance model and its policy know the nouns alone",
        "controlplane/rubick/sizes.py",
        "import headrace.client",
    ),
    Plant(
        "the performance model and its policy know the nouns alone",
        "controlplane/rubick/fitting.py",
        "import sklearn",
    ),
    Plant(
        "only main, the edges and the simulator drive the engine",
        "agent/desired.py",
        "from controlplane.engine import cycle",
    ),
    Plant(
        "only what plugs a live cluster together and the simulator know the policies",
        "controlplane/edges/telemetry.py",
        "import controlplane.baselines",
    ),
    Plant(
        "only what plugs a live cluster together and the simulator know the policies",
        "controlplane/edges/telemetry.py",
        "import controlplane.rubick",
    ),
    Plant(
        "the agent shares only the nouns", "agent/journal.py", "import controlplane.wire.translate"
    ),
    Plant("the agent shares only the nouns", "agent/journal.py", "import controlplane.rubick"),
    Plant(
        "the agent shares only the nouns",
        "agent/journal.py",
        "import controlplane.edges.wall_clock",
    ),
    Plant(
        "the simulator cannot touch the real world",
        "simulator/run.py",
        "import controlplane.edges.wall_clock",
    ),
    Plant("the simulator cannot touch the real world", "simulator/physics.py", "import grpc"),
    Plant(
        "the wire format stays at the edges",
        "controlplane/engine/ports.py",
        "from headrace.api.generated import jobs_pb2",
    ),
    Plant(
        "only the store knows SQL", "controlplane/edges/grpc_server/door.py", "import sqlalchemy"
    ),
    Plant("only the store knows SQL", "controlplane/wire/translate.py", "import sqlite3"),
    Plant(
        "only the store knows its tables",
        "controlplane/edges/grpc_server/jobs.py",
        "from controlplane.edges.store.tables import EVENTS",
    ),
    Plant("only agent.ray_actors knows Ray", "agent/ray_driver.py", "import ray.util"),
    Plant("only agent.ray_actors knows Ray", "headrace/workloads/control.py", "import ray"),
    Plant("only the workloads know torch", "agent/unit_actor.py", "import torch"),
    Plant(
        "only what computes with arrays imports numpy",
        "headrace/cli/main.py",
        "def top(): import numpy",
    ),
    Plant("only the workloads know torch", "headrace/cli/main.py", "def top(): import torch"),
    Plant(
        "only what computes with arrays imports numpy",
        "controlplane/engine/cycle.py",
        "import scipy",
    ),
    Plant("the command line starts fast", "headrace/cli/main.py", "import headrace.workloads"),
    Plant(
        "only telemetry exports metrics",
        "controlplane/edges/grpc_server/door.py",
        "import prometheus_client",
    ),
    Plant(
        "only telemetry exports metrics",
        "operators/runtime/work_queue.py",
        "import prometheus_client",
    ),
]


def _contract_names() -> list[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [contract["name"] for contract in settings["tool"]["importlinter"]["contracts"]]


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=folder,
        capture_output=True,
        check=False,
        text=True,
    )


@pytest.fixture
def copy_of_tree(tmp_path: Path) -> Path:
    """A tree of its own, to plant something in."""
    sources = [name for name in repository_files() if name.partition("/")[0] in PACKAGES]
    for name in ("pyproject.toml", *sources):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_every_contract_is_kept() -> None:
    linted = _lint(ROOT)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert "0 broken" in linted.stdout


def test_every_contract_has_a_planted_violation() -> None:
    assert {plant.contract for plant in PLANTS} == set(_contract_names())


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: f"{plant.path}: {plant.line}")
def test_a_planted_violation_is_caught(plant: Plant, copy_of_tree: Path) -> None:
    target = copy_of_tree / plant.path
    before = target.read_text(encoding="utf-8") if target.exists() else ""
    target.write_text(f"{before}\n\n{plant.line}\n", encoding="utf-8")

    linted = _lint(copy_of_tree)

    assert linted.returncode == 1, linted.stdout + linted.stderr
    assert re.search(rf"^{re.escape(plant.contract)}.*BROKEN", linted.stdout, re.MULTILINE)
