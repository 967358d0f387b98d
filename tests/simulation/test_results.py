"""What a run wrote can be computed again by who has only the files: this shares no code with it."""

import csv
import json
from collections import defaultdict
from pathlib import Path

import pytest

from controlplane.domain.policy import Policy
from simulator.results.files import write_run
from simulator.results.job_outcomes import job_outcomes
from simulator.results.summary import Summary, quantile, summary_of
from simulator.run import simulate_to_the_end
from simulator.scenario import Faults, Scenario
from simulator.workloads.drawing import Drawing
from simulator.workloads.synthetic import Synthetic, generate
from simulator.workloads.trace_jobs import Cluster, scenario_of, with_guaranteed
from tests.simulation.restless_policy import restless
from tests.simulation.small_table import SMALL_TABLE


def small_scenario(**faults: float) -> Scenario:
    """Thirty jobs on two nodes; half of them are promised the speed of their request."""
    described = Synthetic(jobs=30, jobs_per_hour=60.0, median_seconds=300.0, mean_seconds=900.0)
    jobs = with_guaranteed(generate(described, Drawing(SMALL_TABLE, 1, 16)), 15, seed=1)
    return scenario_of(jobs, SMALL_TABLE, cluster=Cluster(2), faults=Faults.model_validate(faults))


def written(folder: Path, scenario: Scenario, policy: Policy) -> Summary:
    result = simulate_to_the_end(scenario, policy, name="restless")
    outcomes = job_outcomes(scenario, result.jobs, result.rows, result.ended_at)
    summary = summary_of(scenario, result, outcomes, "restless")
    write_run(folder, summary, outcomes, result.rows, ["a note"])
    return summary


class Outsider:
    """Reads the allocation log, line by line, with nothing but arithmetic."""

    def __init__(self, folder: Path) -> None:
        with (folder / "allocations.csv").open() as opened:
            self.rows = list(csv.DictReader(opened))
        self.capacity: dict[str, int] = {}
        self.submitted: dict[str, float] = {}
        self.finished: dict[str, float] = {}
        self.steps: dict[str, float] = defaultdict(float)
        self.held_seconds = self.good_seconds = self.offered_seconds = 0.0
        self.starts: dict[str, int] = defaultdict(int)
        self.trained: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
        self.follow()

    def follow(self) -> None:
        holds: dict[str, dict[str, int]] = {}
        self.since: dict[str, tuple[float, float]] = {}
        speed: dict[str, float] = {}
        last = 0.0
        began = min(float(row["time_s"]) for row in self.rows if row["event"] == "submitted")
        for place, row in enumerate(self.rows):
            now, job = float(row["time_s"]), row["job"]
            assert now >= last, "the log is in order"
            passed = now - last
            for held_by, nodes in holds.items():
                self.held_seconds += passed * sum(nodes.values())
                self.steps[held_by] += passed * speed[held_by]
                if speed[held_by]:
                    self.good_seconds += passed * sum(nodes.values())
            if job in holds and speed[job]:
                # Whole stretches of this job: from step to step, on so many accelerator seconds.
                self.training(job, holds[job], speed[job], now)
            self.offered_seconds += max(0.0, now - max(last, began)) * sum(self.capacity.values())
            last = now
            held = dict(part.split(":") for part in row["accelerators"].split())
            counts = {node: int(count) for node, count in held.items()}
            if row["event"] in ("node-online", "node-lost"):
                self.capacity |= counts
            else:
                holds[job], speed[job] = counts, float(row["steps_per_second"])
                self.since[job] = (now, float(row["step"]))
                self.what_happened(job, row["event"], now)
            together = place + 1 < len(self.rows) and float(self.rows[place + 1]["time_s"]) == now
            if not together:
                self.check(holds)
            self.last = row

    def training(self, job: str, held: dict[str, int], speed: float, now: float) -> None:
        began, step = self.since[job]
        passed = now - began
        self.trained[job].append((step, step + passed * speed, passed * sum(held.values())))

    def useful_seconds(self) -> float:
        """Each step counts when it was done for the last time: so this goes backwards."""
        useful = 0.0
        for stretches in self.trained.values():
            lowest = max(last for _, last, _ in stretches)
            for first, last, seconds in reversed(stretches):
                counted = max(0.0, min(lowest, last) - first)
                useful += seconds * counted / (last - first) if last > first else 0.0
                lowest = min(lowest, first)
        return useful

    def what_happened(self, job: str, event: str, now: float) -> None:
        if event == "submitted":
            self.submitted[job] = now
        elif event == "finished":
            self.finished[job] = now
        elif event in ("started", "changed"):
            self.starts[job] += 1

    def check(self, holds: dict[str, dict[str, int]]) -> None:
        for node, capacity in self.capacity.items():
            assert sum(nodes.get(node, 0) for nodes in holds.values()) <= capacity

    def completions(self) -> list[float]:
        return sorted(self.finished[job] - self.submitted[job] for job in self.finished)


def test_every_figure_follows_from_the_allocation_log_alone(tmp_path: Path) -> None:
    scenario = small_scenario()
    summary = written(tmp_path, scenario, restless(SMALL_TABLE))
    told = json.loads((tmp_path / "summary.json").read_text())
    seen = Outsider(tmp_path)
    times = seen.completions()
    assert len(times) == 30
    assert told["jct_mean_seconds"] == pytest.approx(sum(times) / 30)
    place = 0.99 * 29
    top = times[28] + (place - 28) * (times[29] - times[28])
    assert told["jct_p99_seconds"] == pytest.approx(top)
    assert told["jct_p50_seconds"] == pytest.approx((times[14] + times[15]) / 2)
    span = max(seen.finished.values()) - min(seen.submitted.values())
    assert told["makespan_seconds"] == pytest.approx(span)
    assert told["utilisation"] == pytest.approx(seen.held_seconds / seen.offered_seconds)
    assert told["goodput"] == pytest.approx(seen.good_seconds / seen.offered_seconds)
    changes = sum(seen.starts.values()) - 30
    assert told["reconfigurations"] == changes > 5
    assert told["notes"] == ["a note"]
    assert summary.refused == ()


def test_every_job_did_all_its_steps_and_no_more(tmp_path: Path) -> None:
    written(tmp_path, small_scenario(), restless(SMALL_TABLE))
    seen = Outsider(tmp_path)
    with (tmp_path / "jobs.csv").open() as opened:
        jobs = list(csv.DictReader(opened))
    assert {job["name"] for job in jobs} == set(seen.finished)
    for job in jobs:
        assert seen.steps[job["name"]] == pytest.approx(int(job["steps"]), abs=1e-3)
        assert float(job["completion"]) == pytest.approx(
            seen.finished[job["name"]] - seen.submitted[job["name"]]
        )


def test_capacity_holds_while_nodes_are_lost_and_come_back(tmp_path: Path) -> None:
    scenario = small_scenario(nodeLossesPerDay=24, nodeAwaySeconds=600, runFailuresPerDay=10)
    summary = written(tmp_path, scenario, restless(SMALL_TABLE))
    seen = Outsider(tmp_path)
    assert len(seen.finished) == 30
    assert summary.recoveries > 0
    told = json.loads((tmp_path / "summary.json").read_text())
    assert seen.useful_seconds() < seen.good_seconds - 60, "failures took work"
    assert told["goodput"] == pytest.approx(seen.useful_seconds() / seen.offered_seconds)
    assert any(row["event"] == "node-lost" for row in seen.rows)


def test_the_promise_to_guaranteed_jobs_is_judged_by_their_request(tmp_path: Path) -> None:
    scenario = small_scenario()
    summary = written(tmp_path, scenario, restless(SMALL_TABLE))
    with (tmp_path / "jobs.csv").open() as opened:
        jobs = [j for j in csv.DictReader(opened) if j["service_class"] == "Guaranteed"]
    assert summary.promises.jobs == len(jobs) == 15
    late = below = 0
    for job in jobs:
        ways = SMALL_TABLE.every_way(job["model_type"])
        taken = min(w.seconds for w in ways if str(w.plan) == job["requested_plan"])
        promised = 78.0 + taken * int(job["steps"])
        late += float(job["ended"]) - float(job["started"]) > promised * (1 + 1e-6)
        below += float(job["below_promise_as_predicted"]) > 0
    assert (summary.promises.late, summary.promises.predicted) == (late, below)
    assert late > 0
    assert summary.promises.late_worst >= summary.promises.late_mean > 0


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        written(tmp_path / name, small_scenario(stepNoise=0.1), restless(SMALL_TABLE))
    for file in ("allocations.csv", "jobs.csv", "summary.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 2.5), (0.99, 9.73), (1.0, 10.0)])
def test_quantiles_are_interpolated(share: float, expected: float) -> None:
    assert quantile([1.0, 2.0, 3.0, 10.0], share) == pytest.approx(
        expected if share != 0.99 else 3 + 0.97 * 7
    )
