r"""What no schedule of a workload can beat, whoever decides: floors of average JCT and makespan.

For job :math:`j` let :math:`r_j` be its submission, :math:`h_j` the shortest time that it can take
(a start of :math:`\sigma` seconds, then all its steps in the fastest way that is known), and
:math:`g_j` the fewest accelerator-seconds, :math:`g_j = \min_o a_o (\sigma + n_j s_o)`. With
:math:`A` accelerators:

* every job takes at least :math:`h_j`, so the average JCT is at least the mean of :math:`h_j`;
* cut into pieces of any size, the work is that of one machine on which job :math:`j` takes
  :math:`g_j / A`. There, shortest remaining time first has the least average of all schedules that
  may interrupt, so its average is a floor as well (the squashed area bound of malleable tasks,
  Turek et al., SPAA 1994, with arrivals);
* the last job cannot end before :math:`\max_j (r_j + h_j)`, nor before
  :math:`\max_t (t + \sum_{r_j \ge t} g_j / A)`.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from simulator.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Floors:
    """The floors of one scenario.

    Attributes:
        jct_mean_seconds: No average JCT is less.
        alone_mean_seconds: The average if every job had the cluster for itself.
        squashed_mean_seconds: The average on one machine that does the least work.
        makespan_seconds: From the first submission; no makespan is less.
    """

    jct_mean_seconds: float
    alone_mean_seconds: float
    squashed_mean_seconds: float
    makespan_seconds: float


def floors_of(scenario: Scenario, switch_seconds: float) -> Floors:
    """The floors of a scenario without faults.

    Args:
        scenario: Its jobs, nodes and step times.
        switch_seconds: What a start takes.

    Raises:
        ValueError: Nothing is known of a job's steps.
    """
    accelerators = [each for node in scenario.nodes for each in node.accelerators]
    kinds = tuple(dict.fromkeys(each.type for each in accelerators))
    submitted, shortest, least = [], [], []
    for arrival in scenario.arrivals:
        spec = arrival.job.spec
        ways = [way for kind in kinds for way in scenario.step_times.ways(spec, kind)]
        if not ways:
            raise ValueError(f"{arrival.job.full_name}: nothing is known of what its steps take")
        times = [switch_seconds + spec.steps * way.seconds * arrival.pace for way in ways]
        submitted.append(arrival.at / 1e9)
        shortest.append(min(times))
        least.append(min(t * way.accelerators for t, way in zip(times, ways, strict=True)))
    squashed = [each / len(accelerators) for each in least]
    alone = sum(shortest) / len(shortest)
    mean = _shortest_remaining_first(submitted, squashed)
    begin = min(submitted)
    return Floors(
        jct_mean_seconds=max(alone, mean),
        alone_mean_seconds=alone,
        squashed_mean_seconds=mean,
        makespan_seconds=max(
            max(r + h for r, h in zip(submitted, shortest, strict=True)),
            _last_of_one_machine(submitted, squashed),
        )
        - begin,
    )


def _shortest_remaining_first(submitted: Sequence[float], takes: Sequence[float]) -> float:
    """The average JCT on one machine."""
    order = sorted(range(len(takes)), key=lambda i: submitted[i])
    waiting: list[tuple[float, int]] = []
    now, total, place = 0.0, 0.0, 0
    while place < len(order) or waiting:
        if not waiting:
            now = max(now, submitted[order[place]])
        while place < len(order) and submitted[order[place]] <= now:
            heapq.heappush(waiting, (takes[order[place]], order[place]))
            place += 1
        left, job = heapq.heappop(waiting)
        until = submitted[order[place]] if place < len(order) else float("inf")
        if now + left <= until:
            now += left
            total += now - submitted[job]
        else:
            heapq.heappush(waiting, (left - (until - now), job))
            now = until
    return total / len(takes)


def _last_of_one_machine(submitted: Sequence[float], takes: Sequence[float]) -> float:
    end = 0.0
    for i in sorted(range(len(takes)), key=lambda i: submitted[i]):
        end = max(end, submitted[i]) + takes[i]
    return end
