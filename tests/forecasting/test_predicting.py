"""``headrace predict``: what would become of a job that is not submitted yet."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from controlplane.domain.codec import dump
from controlplane.engine.state import ClusterState
from headrace.api.manifest import canonical_json
from headrace.api.manifest_source import jobs_in
from headrace.cli.predict import show
from simulator.forecasting import predicting as program
from simulator.forecasting.predicting import Question, predicted
from tests.builders import JobBuilder, World, a_cluster, a_job, a_node

KIND = "nvidia-h100"
MANIFEST = """
apiVersion: headrace.dev/v1alpha1
kind: TrainingJob
metadata: {name: mine}
spec:
  accelerators: {minimum: 2, maximum: 2}
  model: {name: gpt2, preset: small}
  data: {source: random}
  training: {globalBatchSize: 32, steps: 1000}
  checkpoint: {store: /ckpt, everySteps: 100}
"""


def manifest(text: str = MANIFEST) -> str:
    (found,) = jobs_in(text, "job.yaml")[0]
    return canonical_json(found.job)


def idle() -> World:
    return a_cluster("fifo").with_node(a_node("n", 4, KIND))


def asked(world: World, *manifests: str) -> Any:
    question = Question(snapshot=Path("now.json"), manifests=manifests)
    return predicted(question, world.state, plays=6)


def test_on_an_idle_cluster_it_starts_at_once_and_nothing_is_touched() -> None:
    world = idle()
    before = dump(world.state, ClusterState)
    told = asked(world, manifest())
    (job,) = told["jobs"]
    assert job["job"] == "default/mine"
    assert job["start"]["high"] - told["at"] < 1.0
    assert job["start"]["high"] <= job["end"]["low"] < job["end"]["high"]
    assert job["first"]["accelerators"] == 2
    assert job["outcomesMissing"] == 19
    assert dump(world.state, ClusterState) == before


def test_what_never_fits_is_told_as_such() -> None:
    told = asked(idle(), manifest(MANIFEST.replace("minimum: 2, maximum: 2", "minimum: 8")))
    (job,) = told["jobs"]
    assert job["outcomes"] == {"Waits": 6}
    assert "end" not in job


def test_a_name_that_is_taken_is_refused() -> None:
    world = idle().submit(JobBuilder(replace(a_job("x").job, name="mine")))
    with pytest.raises(ValueError, match="there is a job default/mine already"):
        asked(world, manifest())


def test_the_answer_is_told_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    told = asked(idle(), manifest())
    (job,) = told["jobs"]
    show(job, float(told["at"]), 6)
    told_lines = [line for line in capsys.readouterr().out.splitlines() if line[:1] != " "]
    lines = {name: text.strip() for name, _, text in (each.partition(":") for each in told_lines)}
    assert lines["Name"] == "default/mine"
    assert lines["Starts"].startswith("starts ")
    assert "not calibrated for 90 % yet: 19 outcomes missing" in lines["Ends"]
    assert lines["On"].startswith(f"2 {KIND} under dp2")


def test_the_program_refuses_what_is_no_snapshot(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "now.json").write_text('{"jobs": 3}')
    question = {"snapshot": str(tmp_path / "now.json"), "manifests": [manifest()]}
    monkeypatch.setattr("sys.stdin", StringIO(json.dumps(question)))
    assert program.main() == 4
    assert "nothing was predicted" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", StringIO(json.dumps(question | {"snapshot": "gone.json"})))
    assert program.main() == 1
