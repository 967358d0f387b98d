"""``headrace what-if``: a snapshot played without a change and with it."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from controlplane.baselines import BASELINES
from controlplane.domain.clock import Instant, seconds
from controlplane.domain.codec import dump
from controlplane.domain.from_manifest import job_from_manifest
from controlplane.domain.ids import JobUid
from controlplane.domain.lifecycle import Stage
from controlplane.domain.node import Contact
from controlplane.domain.switch import SwitchKind
from controlplane.domain.switch_price import SwitchPrice
from controlplane.engine.state import ClusterState
from controlplane.wire.manifests import parse_manifest
from headrace.api.manifest import canonical_json
from headrace.api.manifest_source import jobs_in
from headrace.cli.main import app
from headrace.cli.what_if_answer import show_answer, span
from simulator.run import continue_to_the_end, simulate
from simulator.scenario import Costs, JobGroup, NodeGroup, Scenario, ScenarioFile, build
from simulator.snapshots import latest
from simulator.what_if import __main__ as program
from simulator.what_if.asking import answered
from simulator.what_if.forecast import Cluster, forecast
from simulator.what_if.known_steps import KnownSteps
from simulator.what_if.question import AddedNodes, Changes, Question, changes_of
from tests.builders import JobBuilder, World, a_cluster, a_job, a_node

KIND = "nvidia-h100"
MANIFEST = """
apiVersion: headrace.dev/v1alpha1
kind: TrainingJob
metadata: {name: mine}
spec:
  accelerators: {minimum: 2, maximum: 4}
  model: {name: gpt2, preset: small}
  data: {source: random}
  training: {globalBatchSize: 32, steps: 1000}
  checkpoint: {store: /ckpt, everySteps: 100}
"""


def job(name: str, count: int, steps: int) -> JobBuilder:
    """A rigid one of a model that no other trains."""
    rigid = a_job(name).wanting(count).training(hash_free(name))
    return JobBuilder(replace(rigid.job, spec=replace(rigid.job.spec, steps=steps)))


def hash_free(name: str) -> float:
    return float(sum(map(ord, name)))


def world(policy: str = "fifo") -> World:
    """Two nodes of 4; ``runs`` has one of them for 500 s more, and ``long`` the other."""
    cluster = a_cluster(policy).with_node(a_node("n1", 4, KIND), a_node("n2", 4, KIND))
    cluster.submit(job("runs", 4, 1000), job("long", 4, 3000)).settle()
    cluster.trains("runs", 500, step_seconds=1.0, checkpoint_step=400)
    return cluster.trains("long", 1000, step_seconds=1.0, checkpoint_step=800)


def with_one_that_waits() -> World:
    return world().submit(job("waits", 4, 100)).settle()


def asked(state: ClusterState, **question: Any) -> dict[str, Any]:
    """The answer, where starts take no time and unknown steps a second unless said."""
    given = {"switch_seconds": 0.0, "step_seconds": {"": 1.0}} | question
    told = answered(Question(snapshot=Path("now.json"), **given), state)
    copy: dict[str, Any] = json.loads(json.dumps(told))
    return copy


def of(answer: dict[str, Any], name: str, case: str = "after") -> dict[str, Any]:
    found: dict[str, Any] = next(
        each[case] for each in answer["jobs"] if each["job"] == f"default/{name}"
    )
    return found


def manifest(text: str = MANIFEST) -> str:
    ((found,), _) = jobs_in(text, "job.yaml")
    return canonical_json(found.job)


def test_what_runs_goes_on_from_its_step_and_what_waits_follows() -> None:
    state = with_one_that_waits().state
    answer = asked(state)
    assert [of(answer, name, "before")["end_seconds"] for name in ("runs", "long", "waits")] == [
        500.0,
        2000.0,
        600.0,
    ]
    assert of(answer, "waits", "before")["held"] == [
        {
            "start_seconds": 500.0,
            "end_seconds": 600.0,
            "accelerators": 4,
            "plan": "dp4",
            "nodes": ["n1"],
        }
    ]
    assert answer["sums"]["before"]["accelerator_hours"] == pytest.approx(4 * 2600 / 3600)
    assert answer["trouble"] == []


@pytest.mark.parametrize("policy", sorted(BASELINES))
def test_what_is_foretold_is_what_the_same_loop_comes_to(policy: str) -> None:
    described = ScenarioFile(
        nodes=[NodeGroup(count=4, accelerators=4)],
        jobs=[
            JobGroup(name="elastic", count=3, maximum=8, globalBatchSize=64, steps=4000),
            JobGroup(name="gang", count=2, minimum=2, maximum=2, steps=3000),
        ],
    )
    scenario = build(described, 1)
    whole = simulate(scenario, policy=policy, horizon=seconds(7200))
    half = simulate(scenario, policy=policy, horizon=seconds(600))
    assert all(record.stage is Stage.SUCCEEDED for record in whole.jobs.values())
    at = half.ended_at
    known = KnownSteps(half.state, at).all_there()
    for arrival in scenario.arrivals:
        if half.jobs[arrival.job.uid].attempt is None:  # It has told nothing yet.
            known[arrival.job.uid] = arrival
    told = forecast(
        Cluster(half.state, at, scenario.costs, BASELINES, known),
        Changes((), (), (), (), policy, ()),
    )
    assert len(told.jobs) == 5
    for uid, each in told.jobs.items():
        ended = whole.jobs[uid].finished_at
        assert ended is not None
        assert each.end_seconds is not None
        # Where steps are long, a snapshot does not know when the last one began.
        assert each.end_seconds == pytest.approx((ended - at) / 1e9, abs=5.0)


def test_a_live_cluster_is_played_from_now_on_and_a_file_from_its_last_instant() -> None:
    state = with_one_that_waits().state
    last = latest(state) / 1e9
    now = asked(state, now_seconds=last + 100)
    assert of(now, "runs", "before")["end_seconds"] == pytest.approx(400.0, abs=0.001)
    assert of(now, "waits", "before")["start_seconds"] == pytest.approx(400.0, abs=0.001)
    behind = asked(state, now_seconds=last - 100)  # The clock of whoever asks is slow.
    assert behind == asked(state)
    assert of(behind, "runs", "before")["end_seconds"] == 500.0


def test_a_job_of_months_is_played_in_few_rounds_and_limits_hold_to_the_second() -> None:
    months = 10_000_000
    cluster = a_cluster("fifo").with_node(a_node("n1", 4, KIND), a_node("n2", 4, KIND))
    limited = a_job("limited").wanting(4).running_a_command().within(run=5_000_000)
    cluster.submit(job("months", 4, months), limited, job("after", 4, 100)).settle()
    state = cluster.trains("months", 500, step_seconds=1.0, checkpoint_step=400).state
    at = latest(state)
    known = KnownSteps(state, at, told={"": 1.0}).all_there()
    result = continue_to_the_end(
        Scenario(0, (), (), costs=Costs.of_a_switch(0.0, progressSeconds=600.0)),
        state,
        start_at=at,
        policy="fifo",
        policies=BASELINES,
        known=known,
    )
    ends = {
        record.job.name: (record.finished_at - at) / 1e9
        for record in result.jobs.values()
        if record.finished_at is not None
    }
    assert ends["months"] == pytest.approx(months - 500, abs=1.0)
    assert ends["limited"] == pytest.approx(5_000_000, abs=120.0)
    assert ends["after"] == pytest.approx(ends["limited"] + 100, abs=120.0)
    assert result.cycles < 3000  # Each minute would be 166,000.


def test_a_node_that_joins_helps_who_waits_and_hurts_nobody() -> None:
    state = with_one_that_waits().state
    answer = asked(state, add_nodes=(AddedNodes(count=1, accelerators=4),))
    assert (of(answer, "waits")["start_seconds"], of(answer, "waits")["end_seconds"]) == (0, 100)
    assert of(answer, "waits")["held"][0]["nodes"] == ["what-if-1"]
    assert answer["jobs"][0]["job"] == "default/waits"
    assert answer["jobs"][0]["change_seconds"] == -500.0
    gain, hurt = answer["sums"]["gain"], answer["sums"]["hurt"]
    assert (gain["jobs"], gain["seconds"], hurt["jobs"], answer["sums"]["same"]) == (1, 500, 0, 2)
    assert answer["changes"] == [f"4 accelerators ({KIND}) join on what-if-1"]


def test_a_new_node_is_like_one_of_its_type() -> None:
    like = a_node("n1", 8, KIND, labels={"rack": "r1"}, taints=["slow"], cores_each=6, gib=80)
    state = a_cluster().with_node(a_node("n0", 4, KIND, gib=40), like).state
    wanted = AddedNodes(count=2, accelerators=8)
    question = Question(snapshot=Path("x"), add_nodes=(wanted,))
    one, two = changes_of(question, state, BASELINES).nodes
    assert (one.labels, one.taints) == (like.labels, like.taints)
    assert [each.memory_bytes for each in one.accelerators] == [80 * 2**30] * 8
    assert one.accelerators[7].cpu_cores == tuple(range(42, 48))
    assert not {each.id for each in one.accelerators} & {each.id for each in two.accelerators}


def test_what_ran_on_a_lost_node_begins_again_at_its_checkpoint_and_elsewhere_after_a_drain() -> (
    None
):
    spare = a_node("n3", 4, KIND)
    state = world().with_node(spare).state
    lost = asked(state, remove_nodes=("n1",))
    assert of(lost, "runs")["end_seconds"] == pytest.approx(600.0, abs=10.0)  # a retry's wait
    assert of(lost, "runs")["held"][-1]["nodes"] == ["n3"]
    drained = asked(state, drain=("n1",))
    assert of(drained, "runs")["end_seconds"] == pytest.approx(500.0, abs=1.0)
    assert of(drained, "runs")["held"][-1]["nodes"] == ["n3"]


def test_a_quota_that_is_too_small_hurts_and_says_why() -> None:
    cluster = world().with_queue("research", 4).submit(job("waits", 4, 100).in_queue("research"))
    answer = asked(cluster.settle().state, quotas={"research": 2})
    assert of(answer, "waits")["outcome"] == "Waits"
    assert "the whole quota of queue research is 2" in of(answer, "waits")["reason"]
    assert answer["jobs"][0]["effect"] == "hurt"
    assert answer["sums"]["hurt"]["without_end_in_one_case"] == ["default/waits"]
    assert answer["changes"] == ["queue research: quota 4 -> 2"]


def test_a_job_that_would_be_submitted_is_what_a_submission_makes_of_its_manifest() -> None:
    question = Question(snapshot=Path("x"), manifests=(manifest(),))
    (found,) = changes_of(question, world().state, BASELINES).jobs
    real = job_from_manifest(parse_manifest(manifest()), uid=JobUid("real"))
    assert replace(found, uid=real.uid) == real


def test_a_submitted_job_is_told_when_it_would_start_and_end_and_on_what() -> None:
    answer = asked(world().state, manifests=(manifest(),), step_seconds={"mine": 2.0})
    (mine,) = answer["submitted"]
    assert (mine["job"], mine["start_seconds"], mine["outcome"]) == (
        "default/mine",
        500.0,
        "Succeeded",
    )
    held = mine["held"][0]
    # What `--step-seconds` says holds for the 2 accelerators that it asks for.
    assert mine["end_seconds"] == pytest.approx(
        500 + 2000 * (2 / held["accelerators"]) ** 0.9, abs=0.01
    )
    assert (held["nodes"], held["plan"]) == (["n1"], f"dp{held['accelerators']}")


@pytest.mark.parametrize("policy", ["equal-share", "fifo", "rubick"])
def test_who_submits_a_job_of_a_built_in_model_needs_to_say_nothing_of_its_steps(
    policy: str,
) -> None:
    answer = asked(world().state, manifests=(manifest(),), step_seconds={}, policy=policy)
    assert answer["submitted"][0]["outcome"] == "Succeeded"
    assert any("mine as predicted by sizes alone" in each for each in answer["assumed"])


def test_a_job_that_could_never_run_says_why() -> None:
    text = MANIFEST.replace("minimum: 2, maximum: 4", "minimum: 16")
    (mine,) = asked(world().state, manifests=(manifest(text),))["submitted"]
    assert (mine["outcome"], mine["start_seconds"], mine["held"]) == ("Waits", None, [])
    assert "wants 16 accelerators, the usable nodes have 8 for it" in mine["reason"]


def test_a_command_has_no_end_and_whoever_waits_for_it_has_no_start() -> None:
    cluster = a_cluster("fifo").with_node(a_node("n1", 4, KIND))
    cluster.submit(a_job("serve").wanting(4).running_a_command()).settle()
    cluster.submit(job("waits", 4, 100)).settle()
    answer = asked(cluster.state, add_nodes=(AddedNodes(count=1, accelerators=4),))
    serve = of(answer, "serve", "before")
    assert (serve["outcome"], serve["start_seconds"], serve["end_seconds"]) == ("Endless", 0, None)
    assert of(answer, "waits", "before")["outcome"] == "Waits"
    assert of(answer, "waits")["end_seconds"] == 100.0
    assert "no end is known of default/serve (commands)" in answer["assumed"]


def test_a_command_that_may_run_so_long_ends_then() -> None:
    cluster = a_cluster("fifo").with_node(a_node("n1", 4, KIND))
    limited = a_job("serve").wanting(4).running_a_command().within(run=200_000)
    cluster.submit(limited).settle()
    assert of(asked(cluster.state), "serve", "before")["end_seconds"] == pytest.approx(200_000)
    cluster.submit(job("waits", 4, 100)).settle()
    answer = asked(cluster.state)
    assert of(answer, "serve", "before")["outcome"] == "Failed"
    assert of(answer, "waits", "before")["start_seconds"] == pytest.approx(200_000, abs=30)


def test_jobs_of_which_nobody_knows_the_steps_are_said_to_have_no_known_end() -> None:
    state = world().submit(job("strange", 4, 100)).settle().state
    answer = asked(state, step_seconds={})
    assert of(answer, "strange", "before")["outcome"] == "Endless"
    assert any("strange (nobody knows what its steps" in each for each in answer["assumed"])


def test_a_pace_holds_for_the_accelerators_that_it_was_told_on() -> None:
    cluster = a_cluster("equal-share").with_node(a_node("n1", 4, KIND))
    elastic = a_job("grows").wanting(1, 4).with_batch(64)
    cluster.submit(elastic, job("short", 2, 100)).settle()
    held = cluster.held("grows")
    cluster.trains("grows", 10, step_seconds=2.0).trains("short", 0, step_seconds=1.0)
    arrival = KnownSteps(cluster.state, cluster.now).all_there()[JobUid("grows")]
    assert arrival.times is not None
    spec, plan = elastic.job.spec, cluster.attempt("grows").placement.plan
    way = arrival.times.way(spec, KIND, plan, (held,))
    wider = arrival.times.way(spec, KIND, plan, (2 * held,))
    assert way is not None
    assert wider is not None
    assert way.seconds * arrival.pace == pytest.approx(2.0)
    assert wider.seconds == pytest.approx(way.seconds / 2**0.9)


def test_predictions_are_corrected_by_what_jobs_of_the_same_model_tell() -> None:
    real = job_from_manifest(parse_manifest(manifest()), uid=JobUid("mine"))
    cluster = a_cluster("fifo").with_node(a_node("n1", 4, KIND)).submit(JobBuilder(real))
    cluster.settle().trains("mine", 500, step_seconds=7.0)
    text = MANIFEST.replace("mine", "other")
    answer = asked(cluster.state, manifests=(manifest(text),), step_seconds={})
    assert of(answer, "mine", "before")["end_seconds"] == pytest.approx(500 * 7.0, abs=0.01)
    (other,) = answer["submitted"]
    held = other["held"][-1]
    assert held["accelerators"] == cluster.held("mine")
    took = other["end_seconds"] - other["start_seconds"]
    assert took == pytest.approx(1000 * 7.0, abs=0.01)


def test_a_job_is_taken_to_be_as_fast_as_those_of_the_same_program_and_batch() -> None:
    def of_script(name: str, batch: int) -> JobBuilder:
        text = json.dumps({"spec": {"script": {"file": "/jobs/train.py"}}})
        made = job(name, 2, 100).with_batch(batch).job
        return JobBuilder(replace(made, spec=replace(made.spec, manifest_json=text)))

    cluster = a_cluster("fifo").with_node(a_node("n1", 2, KIND))
    cluster.submit(of_script("first", 8)).settle().trains("first", 50, step_seconds=3.0)
    cluster.submit(of_script("alike", 8), of_script("larger", 16)).settle()
    answer = asked(cluster.state, step_seconds={})
    assert of(answer, "alike", "before")["end_seconds"] == pytest.approx(150 + 300, abs=0.01)
    assert of(answer, "larger", "before")["outcome"] == "Endless"


def test_starts_take_what_this_cluster_saw_unless_it_is_said() -> None:
    state = with_one_that_waits().state
    price = SwitchPrice("m", 4, 4, SwitchKind.RESTART, 3, 90.0, (20.0, 40.0, 30.0), Instant(0))
    seen = asked(replace(state, switch_prices={"m": price}), switch_seconds=None)
    assert of(seen, "waits", "before")["end_seconds"] == 630.0
    told = asked(state, switch_seconds=78.0)
    assert of(told, "waits", "before")["end_seconds"] == 678.0


def test_the_same_question_has_the_same_answer_and_the_snapshot_stays_as_it_is() -> None:
    state = with_one_that_waits().state
    before = dump(state, ClusterState)
    first, second = (asked(state, policy="equal-share", drain=("n1",)) for _ in range(2))
    assert first == second
    assert dump(state, ClusterState) == before
    assert first["policy"] == {"before": "fifo", "after": "equal-share"}


def test_everything_that_cannot_be_asked_is_told_at_once() -> None:
    question = Question(
        snapshot=Path("x"),
        add_nodes=(AddedNodes(count=1, accelerators=8, type="a100"),),
        remove_nodes=("n7",),
        drain=("n8",),
        quotas={"none": 3},
        policy="best",
        manifests=(manifest(MANIFEST.replace("mine", "runs")),),
    )
    with pytest.raises(ValueError, match="--remove-node") as caught:
        answered(question, world().state)
    assert str(caught.value).splitlines() == [
        "--remove-node: there is no node 'n7'; there are n1, n2",
        "--drain: there is no node 'n8'; there are n1, n2",
        "--quota: there is no queue 'none'; there are default",
        "--policy: there is no policy 'best'; there are equal-share, fifo, rubick",
        f"--add-nodes: wanted a type that the cluster has ({KIND}), got 'a100', of which nobody "
        "knows how fast it is",
        "--submit: there is a job default/runs already, and to apply this manifest would change "
        "that one; give it another name to ask what a further job would do",
    ]


def test_a_name_that_no_job_has_is_refused_for_step_seconds() -> None:
    with pytest.raises(ValueError, match="no job 'other'"):
        asked(world().state, step_seconds={"other": 1.0})


def test_nodes_that_have_not_spoken_since_a_restart_are_taken_to_be_there() -> None:
    state = with_one_that_waits().state.after_restart()
    assert {node.contact for node in state.nodes.values()} == {Contact.SILENT}
    assert of(asked(state), "waits", "before")["end_seconds"] == 600.0


def test_the_command_shows_a_snapshot_file_in_eighty_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    cluster = with_one_that_waits()
    file, wanted = tmp_path / "now.json", tmp_path / "mine.yaml"
    file.write_text(dump(cluster.state, ClusterState))
    wanted.write_text(MANIFEST)
    command = ["what-if", "--snapshot", str(file), "--submit", str(wanted), "-o", "json"]
    more = ["--add-nodes", "1x4", "--switch-seconds", "0", "--step-seconds", "waits=1"]
    done = CliRunner().invoke(app, [*command, *more])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["submitted"][0]["job"] == "default/mine"
    show_answer(told, wide=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "default/waits  8m20s -> now  10m00s -> 1m40s  -8m20s" in lines
    assert "Gain: 1 job, 8m20s in all, most of all default/waits 8m20s." in lines
    assert any(line.startswith("default/mine would start in 1m40s and end in") for line in lines)


def test_a_snapshot_that_is_none_is_refused_with_what_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "now.json"
    file.write_text("{}x")
    monkeypatch.setattr("sys.stdin", StringIO(json.dumps({"snapshot": str(file)})))
    assert program.main() == 4
    assert "wanted what `headrace snapshot -o FILE` of this version" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", StringIO(json.dumps({"snapshot": str(tmp_path / "none")})))
    assert program.main() == 1
    assert "none: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("--add-nodes", "8", "NODESxACCELERATORS"),
        ("--add-nodes", "0x8", "NODESxACCELERATORS"),
        ("--quota", "research", "QUEUE=ACCELERATORS"),
        ("--quota", "research=-2", "QUEUE=ACCELERATORS"),
        ("--step-seconds", "a=nan", "JOB=SECONDS"),
        ("--step-seconds", "-1", "JOB=SECONDS"),
    ],
)
def test_a_mistyped_option_says_how_it_is_written(option: str, value: str, wanted: str) -> None:
    done = CliRunner().invoke(app, ["what-if", f"{option}={value}"])
    assert done.exit_code == 2
    assert wanted in done.stderr
    assert repr(value) in done.stderr


@pytest.mark.parametrize(
    ("seconds_", "shown"),
    [
        (0.2, "now"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (3599.6, "1h00m"),
        (7500, "2h05m"),
        (86_399, "1d00h"),
        (180_000, "2d02h"),
    ],
)
def test_spans_of_time_are_told_in_two_units(seconds_: float, shown: str) -> None:
    assert span(seconds_) == shown
