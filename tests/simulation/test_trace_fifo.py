"""FIFO on exact requests: the same numbers as a simulator that shares no code with this one."""

import os
from pathlib import Path

import pytest

from simulator.measured_table import read_table
from simulator.policies import policy_named
from simulator.run import simulate_to_the_end
from simulator.workloads.rubick import read_rubick
from simulator.workloads.trace_jobs import as_recorded, scenario_of

# Average completion time, P99 (linearly interpolated) and makespan in hours of Rubick's 406 jobs on
# 8 nodes of 8, where running time is the start cost plus the recorded duration. Computed by an
# independent event-driven program for the survey of baselines (its section 9).
ORACLE = [
    (0, "fifo", 5.5715, 8.3679, 21.5083),
    (78, "fifo", 6.1984, 9.4324, 22.9454),
    (260, "fifo", 7.6797, 12.2187, 26.1011),
    (0, "fifo-skip", 0.8901, 7.5913, 17.4225),
    (78, "fifo-skip", 0.9983, 8.2558, 18.4920),
    (260, "fifo-skip", 1.4729, 10.0668, 21.1610),
]


@pytest.mark.skipif("HEADRACE_DATA" not in os.environ, reason="HEADRACE_DATA names no data folder")
@pytest.mark.parametrize(("switch", "policy", "average", "p99", "makespan"), ORACLE)
def test_rubicks_trace_takes_what_an_independent_program_says(
    switch: float, policy: str, average: float, p99: float, makespan: float
) -> None:
    folder = Path(os.environ["HEADRACE_DATA"]) / "rubick"
    table = read_table(folder / "measured")
    jobs = read_rubick(folder / "workloads" / "workload-base.csv", table)
    scenario = as_recorded(scenario_of(jobs, table, switch_seconds=switch), jobs)
    result = simulate_to_the_end(scenario, policy_named(policy, table, switch), name=policy)
    assert result.refused == ()
    times = result.completion_seconds()
    assert len(times) == 406
    place = 0.99 * (len(times) - 1)
    low = int(place)
    top = times[low] + (place - low) * (times[low + 1] - times[low])
    ends = max(record.finished_at or 0 for record in result.jobs.values())
    hours = (sum(times) / len(times) / 3600, top / 3600, ends / 3.6e12)
    assert tuple(round(each, 4) for each in hours) == (average, p99, makespan)
