"""How often jobs end when it was predicted: a simulated week of the Philly trace, or one of Sia's
workloads, with drift, and what users go by today beside it.

    python benchmarks/forecast_coverage.py --data ~/data --workload philly --hours 168 --jobs 500

The cluster is played by the one loop. Beside it, as live, its state is played forward at most every
``--every-seconds`` when jobs came or started, and what comes of it enters as an event. What is
known of steps is what jobs told, no more: of a job that waits, what those of its model do that run.

Drift: from half of the time on jobs of one model take a third longer; another model comes only
after a third of the time; and from two thirds on every run's steps are up to 15 % off.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import ceil, exp, log, sqrt
from pathlib import Path
from statistics import fmean, median, pstdev
from time import perf_counter

from controlplane.domain.chance import draw, draw_between
from controlplane.domain.clock import SECOND, Instant, after, seconds
from controlplane.domain.event import Event, JobsForecast, JobSubmitted, UnitStarted
from controlplane.domain.forecast import ForecastOutcome
from controlplane.domain.policy import Policy
from controlplane.engine.loop import CycleReport
from simulator.forecasting.answering import Asked, answered
from simulator.policies import policy_named
from simulator.run import Result, simulate_to_the_end
from simulator.scenario import Faults, Scenario
from simulator.study import Study, scenario_for, window_from

DAY = 86_400.0
_SLOWER, _NOISE = 4 / 3, 0.15
_LIMITS_HOURS = (1, 2, 4, 8, 12, 24, 48, 96, 168)
_RESAMPLES = 2_000


class ForecastsBeside:
    """Told after each cycle; predicts as the live forecaster does, in virtual time."""

    def __init__(self, policies: Mapping[str, Policy], every_seconds: float, plays: int) -> None:
        """Has predicted nothing yet.

        Args:
            policies: Who decides, by name; one that remembers, apart from the loop's.
            every_seconds: Of virtual time, between two predictions at least.
            plays: How often each state is played.
        """
        self._policies = policies
        self._every_seconds = every_seconds
        self._plays = plays
        self._not_before = Instant(0)
        self._news = False
        # The loop runs in this thread, and what is played has a loop of its own.
        self._apart = ThreadPoolExecutor(1)
        self.count = 0
        self.seconds = 0.0

    def __call__(self, report: CycleReport) -> Iterator[Event]:
        """What enters after a cycle."""
        happened = (each.event for each in report.events)
        self._news |= any(isinstance(each, JobSubmitted | UnitStarted) for each in happened)
        if report.outcome is None or not self._news:
            return
        now = report.outcome.decided.at
        if now < self._not_before:
            return
        self._news, self._not_before = False, after(now, seconds(self._every_seconds))
        began = perf_counter()
        asked = Asked(report.state.last_sequence, now, self._plays, 3600.0)
        made = self._apart.submit(
            answered, asked, report.state, self._policies, perf_counter
        ).result()
        self.count += 1
        self.seconds += perf_counter() - began
        if made.jobs:
            yield JobsForecast(made, now)


@dataclass(frozen=True, slots=True)
class Row:
    """How one kind of prediction did.

    Attributes:
        name: What was predicted from what.
        inside: For each of its predictions, in the order of ends, whether it came true.
        days: On which day each ended.
        width: Median of upper end over lower end of what was left.
        error: Median of how far the middle was off, as a factor.
    """

    name: str
    inside: Sequence[bool]
    days: Sequence[int]
    width: float
    error: float


def with_drift(scenario: Scenario) -> Scenario:
    """The scenario with jobs that drift, and with what lets jobs of one model be recognised."""
    last = max(arrival.at for arrival in scenario.arrivals)
    models = sorted({arrival.job.spec.model_type for arrival in scenario.arrivals})
    slower, late = models[0], models[-1]
    found = []
    for arrival in scenario.arrivals:
        spec, share = arrival.job.spec, arrival.at / last
        if spec.model_type == late and share < 1 / 3:
            continue
        pace = arrival.pace * (_SLOWER if spec.model_type == slower and share > 1 / 2 else 1.0)
        if share > 2 / 3:
            pace *= exp(draw_between(-_NOISE, _NOISE, scenario.seed, "drift", arrival.job.uid))
        named = json.dumps({"spec": {"model": {"name": spec.model_type, "preset": "any"}}})
        job = replace(arrival.job, spec=replace(spec, manifest_json=named))
        found.append(replace(arrival, job=job, pace=pace))
    told = f"drift: {slower} slower from half on, {late} from a third on, all noisier from 2/3 on"
    return replace(scenario, arrivals=tuple(found), notes=(*scenario.notes, told))


def play(options: argparse.Namespace) -> tuple[Result, ForecastsBeside, Scenario]:
    """Plays the workload to its end, with forecasts beside it."""
    study = Study(
        workload=options.workload,
        data=options.data,
        window=window_from(options.start, options.hours, options.jobs),
        faults=Faults(
            runFailuresPerDay=options.failures_per_day,
            stragglerShare=options.stragglers,
            stepNoise=0.05,
        ),
    )
    made, table = scenario_for(study, options.seed)
    scenario = with_drift(made)
    decides, apart = (policy_named(options.policy, table, study.switch_seconds) for _ in range(2))
    beside = ForecastsBeside({options.policy: apart}, options.every_seconds, options.plays)
    result = simulate_to_the_end(scenario, decides, name=options.policy, learns=beside)
    return result, beside, scenario


def forecasts(name: str, outcomes: Iterable[ForecastOutcome]) -> Row:
    """The predictions of one point in a job's life."""
    rows = sorted(outcomes, key=lambda each: each.ended_at)
    ratios, errors = [], []
    for each in rows:
        end, made = each.forecast.end, each.forecast.made_at
        assert end is not None
        low, middle, high, true = (
            (at - made) / SECOND + 1.0 for at in (end.low, end.median, end.high, each.ended_at)
        )
        ratios.append(high / low)
        errors.append(abs(log(true / middle)))
    return Row(
        name,
        [each.inside for each in rows],
        [_day(each.ended_at) for each in rows],
        median(ratios) if ratios else 0.0,
        exp(median(errors)) if errors else 0.0,
    )


def baselines(result: Result, seed: int) -> list[Row]:
    """What users go by: their own limit, the mean of past runs alike, the last one. At the start.

    The trace tells no limits, so they are drawn: the length times 1 to 3, up to the next of those
    that people type. A mean is told with 1.645 standard deviations of the logarithm of past runs,
    the last run with a quarter to each side.
    """
    ran = sorted(
        (record for record in result.jobs.values() if record.finished_at is not None),
        key=lambda record: record.first_started_at or Instant(0),
    )
    past: dict[tuple[str, int], list[tuple[Instant, float]]] = {}
    spans: dict[str, list[tuple[Instant, float, float, float, float]]] = {}
    for record in ran:
        spec, start, end = record.job.spec, record.first_started_at, record.finished_at
        if start is None or end is None:
            continue
        took = (end - start) / SECOND
        hours = took / 3600 * (1 + 2 * draw(seed, "limit", record.uid))
        limit = 3600 * next((one for one in _LIMITS_HOURS if one >= hours), ceil(hours))
        spans.setdefault("user's limit", []).append((end, took, 0.0, limit, limit))
        kind = (spec.model_type, spec.accelerators.asked_for)
        known = [length for at, length in past.get(kind, ()) if at <= start]
        if known:
            spans.setdefault("last run", []).append(
                (end, took, known[-1] / 1.25, known[-1], known[-1] * 1.25)
            )
        if len(known) > 1:
            logs = [log(length) for length in known]
            off = 1.645 * pstdev(logs) * sqrt(1 + 1 / len(logs))
            middle = fmean(known)
            spans.setdefault("mean of past runs", []).append(
                (end, took, middle * exp(-off), middle, middle * exp(off))
            )
        past.setdefault(kind, []).append((end, took))
        past[kind].sort()
    return [_baseline(name, sorted(rows)) for name, rows in sorted(spans.items())]


def _baseline(name: str, rows: Sequence[tuple[Instant, float, float, float, float]]) -> Row:
    return Row(
        f"{name}, at start",
        [low <= took <= high for _, took, low, _, high in rows],
        [_day(end) for end, *_ in rows],
        median(high / low if low else float("inf") for _, _, low, _, high in rows),
        exp(median(abs(log(took / middle)) for _, took, _, middle, _ in rows)),
    )


def _day(at: Instant) -> int:
    return int(at / SECOND // DAY)


def band(count: int, inside: Sequence[bool], block: int, seed: int) -> tuple[float, float]:
    """Where 99 % of days of so many jobs would lie, by drawing blocks of neighbours (with the mean
    moved to 0.9): ends close to each other are missed together.
    """
    if not inside or not count:
        return 0.0, 1.0
    off = fmean(inside) - 0.9
    shares = []
    for number in range(_RESAMPLES):
        drawn: list[bool] = []
        while len(drawn) < count:
            begin = int(draw(seed, "block", number, len(drawn)) * len(inside))
            drawn += inside[begin : begin + min(block, count - len(drawn))]
        shares.append(fmean(drawn) - off)
    shares.sort()
    return max(0.0, shares[_RESAMPLES // 200]), min(1.0, shares[-_RESAMPLES // 200 - 1])


def by_day(row: Row, seed: int) -> Iterator[str]:
    """Each day from the second on: its share, and whether that lies within the band."""
    kept = [hit for hit, day in zip(row.inside, row.days, strict=True) if day > 0]
    for day in sorted(set(row.days)):
        own = [hit for hit, at in zip(row.inside, row.days, strict=True) if at == day]
        low, high = band(len(own), kept, 10, seed)
        share = fmean(own)
        mark = "" if day == 0 else (" within" if low <= share <= high else " OUTSIDE")
        lies = f"{mark} {100 * low:.0f}-{100 * high:.0f}"
        yield f"  day {day}: {100 * share:5.1f} % of {len(own)}{lies}"


def told(rows: Iterable[Row]) -> Iterator[str]:
    """A line for each: over all but the first day."""
    yield f"{'predicted':34} {'ends':>5} {'inside':>7} {'early/late width':>17} {'off by':>7}"
    for row in rows:
        kept = [hit for hit, day in zip(row.inside, row.days, strict=True) if day > 0]
        if kept:
            yield (
                f"{row.name:34} {len(kept):5} {100 * fmean(kept):6.1f}% {row.width:16.2f}x "
                f"{row.error:6.2f}x"
            )


def main() -> None:
    """Plays, and prints what came true."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with rubick/ and traces/")
    parser.add_argument("--workload", default="philly", help="philly, or sia-philly-1 and so on")
    parser.add_argument("--hours", type=float, default=168.0, help="of philly")
    parser.add_argument(
        "--start",
        type=lambda text: datetime.fromisoformat(text).replace(tzinfo=UTC),
        help="of philly, in UTC; the hour at which most jobs came if left out",
    )
    parser.add_argument("--jobs", type=int, default=500, help="of philly")
    parser.add_argument("--policy", default="fifo", help="who decides")
    parser.add_argument("--every-seconds", type=float, default=300.0)
    parser.add_argument("--plays", type=int, default=8)
    parser.add_argument("--stragglers", type=float, default=0.03, help="share at half speed")
    parser.add_argument("--failures-per-day", type=float, default=0.1, help="of each run")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    result, beside, scenario = play(options)
    outcomes = result.state.forecast_outcomes
    calibrated = [each for each in outcomes if each.is_counted and not each.forecast.missing]
    split: Mapping[str, list[ForecastOutcome]] = {
        "forecast, at submission": [each for each in calibrated if not each.forecast.started],
        "forecast, at start": [each for each in calibrated if each.forecast.started],
    }
    rows = [forecasts(name, found) for name, found in split.items()]
    played = replace(rows[1], name="as played, at start", inside=_as_played(split))
    for note in scenario.notes:
        print(note)
    print(
        f"{len(scenario.arrivals)} jobs, {len(outcomes)} predictions counted, {len(calibrated)} of "
        f"them calibrated; {beside.count} times predicted in {beside.seconds:.0f} s"
    )
    print("\n".join(told([*rows, played, *baselines(result, options.seed)])))
    for row in rows:
        print(row.name)
        print("\n".join(by_day(row, options.seed)))


def _as_played(split: Mapping[str, list[ForecastOutcome]]) -> list[bool]:
    found = sorted(split["forecast, at start"], key=lambda each: each.ended_at)
    spans = [(each.forecast.played_end, each.ended_at) for each in found]
    return [span is not None and span.holds(at) for span, at in spans]


if __name__ == "__main__":
    main()
