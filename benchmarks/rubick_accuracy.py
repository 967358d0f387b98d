"""How well the performance model predicts steps that it has not seen, and the published one does.

    python benchmarks/rubick_accuracy.py --data DIR [--csv FILE] [--svg FILE]

DIR holds ``rubick/measured`` and ``rubick/profile``, the tables of the Rubick artifact (A800s, up
to 64). Every placement of its tables is left out of the fit once, with all plans on it, and then
asked about; pipelines and tensor parallelism row by row. The tables of docs/evidence (H100s, one
and two) are fitted from seven rows and asked about all others. The published model runs beside,
with the parameters that its authors ship. Same input, same output; two to three minutes.
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.evidence import read
from benchmarks.rubick_accuracy_chart import Bar, chart
from controlplane.rubick.configurations import Numbers
from controlplane.rubick.fitting import fit
from controlplane.rubick.informative import most_informative
from controlplane.rubick.measurements import Measurement, columns
from controlplane.rubick.priors import prior_for, transferred
from controlplane.rubick.published import PublishedModel, PublishedParameters
from controlplane.rubick.sizes import ModelSizes
from controlplane.rubick.step_time import StepTimeModel
from headrace.api.memory import GIB, estimated_peak_bytes
from headrace.api.models import PRESETS
from headrace.api.plan import ExecutionPlan, PipelineSchedule
from headrace.api.profile_rows import PlanRow, Status

EVIDENCE = Path(__file__).resolve().parent.parent / "docs" / "evidence"
SMALL = ("bert", "gpt2", "t5", "roberta", "vit")
SPLIT = ("t5", "gpt2", "llama7")
H100 = ("gpt2-1.26b", "bert-336m", "llama-2-7b", "vit-86m")
_MEMORY = 79.2 * GIB
"""Of these H100s, as they tell it."""

Result = TypeVar("Result")
POINTS = 7
"""Rows of a profile, as the paper takes them."""

DRAWS = 12
"""How often the seven are chosen anew from a part of the rows: one choice may be lucky."""

_LEFT_AT_RANDOM = 0.75
"""That part."""

_THREADS = 4
"""CPU threads of a GPU with offload: as the artifact's validation; its tables do not say."""


@dataclass(frozen=True, slots=True)
class _Task:
    """A model of the A800 tables, as the artifact configures it.

    Attributes:
        parameters: Trained weights.
        forward: Milliseconds of a forward pass on one GPU that its scheduler takes.
        pcie: GB/s that it takes.
        nvlink: GB/s that it takes.
    """

    parameters: float
    layers: int
    hidden: int
    positions: int
    samples: int
    forward: float = 0.0
    pcie: float = 0.0
    nvlink: float = 0.0


_TASKS: Mapping[str, _Task] = {
    "vit": _Task(85_952_456, 12, 768, 1024, 64, 40, 64.0, 34.057018390132875),
    "roberta": _Task(355_412_057, 24, 1024, 1024, 64, 480, 7.9107385391936935, 50.303643979067175),
    "bert": _Task(336_297_858, 24, 1536, 1024, 32, 225, 64.0, 119.4879085392442),
    "t5": _Task(1_240_809_472, 16, 1280, 768, 16, 410, 64.0, 88.56587629910638),
    "gpt2": _Task(1_557_686_400, 24, 1920, 1024, 16, 1100, 59.720964902105614, 144.8376373230351),
    "llama7": _Task(6_738_423_808, 32, 4096, 2048, 8),
}

_KINDS: Mapping[str, Callable[[int], ExecutionPlan]] = {
    # Each GPU's batch is at most the global one, so "ga" accumulates nothing in these tables.
    "ga": lambda n: ExecutionPlan(n),
    "gc": lambda n: ExecutionPlan(n, activation_checkpointing=True),
    "zero-dp": lambda n: ExecutionPlan(n, zero_stage=2),
    "zero-offload": lambda n: ExecutionPlan(n, zero_stage=2, offload=True),
}


@dataclass(frozen=True, slots=True)
class MeasuredRow:
    """A measured row.

    Attributes:
        measurement: It.
        doubt: Why it may be wrong; empty if nothing speaks against it.
    """

    measurement: Measurement
    doubt: str = ""

    @property
    def crosses(self) -> bool:
        """Whether it ran on several nodes."""
        return len(self.measurement.shares) > 1


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was said about a row; a line of the CSV."""

    table: str
    model: str
    plan: str
    placement: str
    measured: float
    predicted: float
    lower: float
    upper: float
    published: float
    doubt: str

    @property
    def error(self) -> float:
        return abs(self.predicted / self.measured - 1)

    @property
    def published_error(self) -> float:
        return abs(self.published / self.measured - 1)

    @property
    def is_covered(self) -> bool:
        return self.lower <= self.measured <= self.upper

    @property
    def crosses(self) -> bool:
        return "+" in self.placement


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that holds rubick/")
    parser.add_argument("--csv", type=Path, help="where to write every prediction")
    parser.add_argument("--svg", type=Path, help="where to write the picture")
    asked = parser.parse_args()
    folder = asked.data / "rubick"
    if not (folder / "measured").is_dir():
        sys.exit(f"wanted the artifact's tables in {folder / 'measured'}, found no such folder")

    kept = [
        p for m in SMALL for p in placements_left_out("all rows", m, rows_of(folder, m), folder)
    ]
    sound = [
        p
        for m in SMALL
        for p in placements_left_out(
            "doubtful left out", m, [r for r in rows_of(folder, m) if not r.doubt], folder
        )
    ]
    _print_a800("A800, every placement left out of the fit once: all rows", kept)
    _print_doubts(folder)
    _print_a800("The same, doubtful rows neither fitted nor asked about", sound)
    halves = list(roberta_halves(folder))
    others = [p for p in kept if p.model != "roberta"]
    _print_a800("All rows, the doubtful ones as of half a batch", [*others, *halves])
    split = [p for m in SPLIT for p in rows_left_out(folder, m)]
    _print_split(split)
    seven = list(seven_of_each())
    _print_seven(f"from {POINTS} rows: all others", seven)
    title = f"from {POINTS} of a random three quarters: all others, {DRAWS} draws"
    _print_seven(title, list(seven_of_each(draws=range(DRAWS))))
    _print_seven(f"from {2 * POINTS} rows: all others", list(seven_of_each(2 * POINTS)))
    _print_seven("each row from all others of its model", list(all_but_one()))
    _print_seven("from none: what priors say", list(seven_of_each(0)))
    _print_doubts_of_ours()
    _print_speed(folder)
    if asked.csv:
        _write(
            asked.csv, [*kept, *sound, *halves, *split, *(p for _, found in seven for p in found)]
        )
    if asked.svg:
        asked.svg.write_text(chart(list(_bars(kept, sound, split))), encoding="utf-8")


# -- tables of the artifact -----------------------------------------------------------------------


def _table(folder: Path, model: str) -> list[tuple[str, Measurement]]:
    """Rows of a model with the artifact's names of their plans."""
    task = _TASKS[model]
    found = []
    with (folder / "measured" / model / "placements.csv").open(encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            shares = tuple(int(digit) for digit in row["placement"])
            name = row["exec_plan"]
            plan = _split_plan(name) if name.isdigit() else _KINDS[name](sum(shares))
            seconds = float(row["iter_time"])
            found.append((name, Measurement(plan, shares, task.samples, seconds, _THREADS)))
    return found


def _split_plan(digits: str) -> ExecutionPlan:
    """A 3D plan: pipeline, tensor, data parallelism. Its times grow with the pipeline as those of
    one micro-batch do, so none is divided further.
    """
    pipeline, tensor, data = (int(digit) for digit in digits)
    schedule = PipelineSchedule.ONE_F_ONE_B if pipeline > 1 else None
    return ExecutionPlan(data, 1, tensor, pipeline, schedule)


def rows_of(folder: Path, model: str) -> list[MeasuredRow]:
    """Rows of the DP family."""
    return [
        MeasuredRow(measurement, _doubt(model, name, measurement))
        for name, measurement in _table(folder, model)
        if name in _KINDS
    ]


def _doubt(model: str, name: str, measurement: Measurement) -> str:
    if model == "roberta" and measurement.plan.ranks == 1 and name != "gc":
        return "as long as on 2 GPUs; looks like half a batch"
    return ""


def _sizes(model: str, precision: str = "fp32") -> ModelSizes:
    task = _TASKS[model]
    return ModelSizes.of_numbers(
        task.parameters, task.layers, task.hidden, task.positions, precision=precision
    )


def _published(folder: Path, model: str, network: float) -> PublishedModel:
    """The published model with the parameters that the artifact ships."""
    names = ("k_bwd", "k_sync", "k_opt", "k_os_offload", "k_const", "k_off", "k_swap")
    with (folder / "profile" / "history.csv").open(encoding="utf-8-sig") as file:
        (row,) = (row for row in csv.DictReader(file) if row["model"] == model)
    task = _TASKS[model]
    parameters = PublishedParameters(*(float(row[name]) for name in names))
    return PublishedModel(parameters, task.parameters / 2**20, task.pcie, task.nvlink, network)


# -- predictions ----------------------------------------------------------------------------------


def placements_left_out(
    table: str, model: str, rows: Sequence[MeasuredRow], folder: Path, network: float = 16.0
) -> Iterator[Prediction]:
    prior = prior_for(_sizes(model), precision="fp32")
    measurements = [row.measurement for row in rows]
    start = fit(measurements, prior).model
    published = _published(folder, model, network).seconds(
        columns(measurements), _TASKS[model].forward
    )
    for shares in sorted({row.measurement.shares for row in rows}):
        others = [m for m in measurements if m.shares != shares]
        mine = [i for i, m in enumerate(measurements) if m.shares == shares]
        model_without = fit(others, prior, start).model
        yield from _predictions(
            table, model, model_without, [rows[i] for i in mine], published[mine]
        )


def roberta_halves(folder: Path) -> Iterator[Prediction]:
    """Predictions of roberta where its doubtful rows are taken for what they look like."""
    rows = [
        replace(row, measurement=replace(row.measurement, samples=row.measurement.samples // 2))
        if row.doubt
        else row
        for row in rows_of(folder, "roberta")
    ]
    yield from placements_left_out("doubtful as half a batch", "roberta", rows, folder)


def rows_left_out(folder: Path, model: str) -> Iterator[Prediction]:
    rows = [MeasuredRow(m) for name, m in _table(folder, model) if name.isdigit()]
    prior = prior_for(_sizes(model, "bf16"))
    start = fit([row.measurement for row in rows], prior).model
    for index, row in enumerate(rows):
        others = [other.measurement for i, other in enumerate(rows) if i != index]
        yield from _predictions("3D", model, fit(others, prior, start).model, [row])


def _predictions(
    table: str,
    name: str,
    model: StepTimeModel,
    rows: Sequence[MeasuredRow],
    published: Numbers | None = None,
) -> Iterator[Prediction]:
    times = model.predict(columns([row.measurement for row in rows]))
    for index, row in enumerate(rows):
        m = row.measurement
        yield Prediction(
            table,
            name,
            str(m.plan),
            "+".join(map(str, m.shares)),
            m.seconds,
            float(times.seconds[index]),
            float(times.lower[index]),
            float(times.upper[index]),
            float(published[index]) if published is not None else float("nan"),
            row.doubt,
        )


# -- our own tables -------------------------------------------------------------------------------


def _evidence(model: str) -> list[MeasuredRow]:
    return [
        MeasuredRow(Measurement.of_row(row), _doubt_of_ours(model, row))
        for row in read(EVIDENCE / f"plans-{model}.csv")
        if isinstance(row, PlanRow) and row.status is Status.MEASURED
    ]


def _doubt_of_ours(model: str, row: PlanRow) -> str:
    plan = ExecutionPlan.parse(row.plan)
    if plan.offload and plan.accumulation_steps > 1 and plan.ranks > 1:
        return "before memory was pinned by threads"
    if model == "llama-2-7b" and row.plan == "dp2-z2":
        return "filled its card: 79.1 of 79.2 GiB"
    return ""


def _evidence_sizes(model: str, row: MeasuredRow) -> ModelSizes:
    return ModelSizes.of_shape(PRESETS[model], sequence_length=row.measurement.positions)


def seven_of_each(
    points: int = POINTS, draws: Sequence[int | None] = (None,)
) -> Iterator[tuple[str, list[Prediction]]]:
    """Each model from so many rows, with a prior from its sizes, and from the other two models.

    Args:
        points: How many.
        draws: Seeds of parts of the rows from which they are chosen; None for all.
    """
    tables = {model: _evidence(model) for model in H100}
    for is_transferred in (False, True):
        name = "prior of the others" if is_transferred else "prior of sizes"
        found: list[Prediction] = []
        for model, rows in tables.items():
            prior = _prior_of(model, tables, is_transferred)
            for draw in draws:
                candidates = _drawn(_offered(model, rows), draw)
                chosen = _chosen(prior, [row.measurement for row in rows], points, candidates)
                fitted = fit([rows[i].measurement for i in chosen], prior).model
                rest = [row for i, row in enumerate(rows) if i not in chosen]
                found += _predictions(f"seven, {name}", model, fitted, rest)
        yield name, found


def _drawn(candidates: Sequence[int], draw: int | None) -> Sequence[int]:
    if draw is None:
        return candidates
    chance = np.random.default_rng(draw).random(len(candidates))
    return [each for each, drawn in zip(candidates, chance, strict=True) if drawn < _LEFT_AT_RANDOM]


def all_but_one() -> Iterator[tuple[str, list[Prediction]]]:
    """Each row from all others of its model: what no choice of seven can be much better than."""
    tables = {model: _evidence(model) for model in H100}
    for is_transferred in (False, True):
        name = "prior of the others" if is_transferred else "prior of sizes"
        found: list[Prediction] = []
        for model, rows in tables.items():
            prior = _prior_of(model, tables, is_transferred)
            start = fit([row.measurement for row in rows], prior).model
            for index, row in enumerate(rows):
                others = [other.measurement for i, other in enumerate(rows) if i != index]
                fitted = fit(others, prior, start).model
                found += _predictions(f"all but one, {name}", model, fitted, [row])
        yield name, found


def _prior_of(
    model: str, tables: Mapping[str, Sequence[MeasuredRow]], is_transferred: bool
) -> StepTimeModel:
    device = "NVIDIA H100 80GB HBM3"
    prior = prior_for(_evidence_sizes(model, tables[model][0]), device)
    if not is_transferred:
        return prior
    known: StepTimeModel | None = None
    for other, rows in tables.items():
        if other != model:
            sizes = _evidence_sizes(other, rows[0])
            begin = transferred(known, sizes) if known else prior_for(sizes, device)
            known = fit([row.measurement for row in rows], begin).model
    assert known is not None
    return transferred(known, prior.sizes)


def _offered(model: str, rows: Sequence[MeasuredRow]) -> list[int]:
    """Rows of plans that the memory model offers on these accelerators."""
    found = []
    for index, row in enumerate(rows):
        m = row.measurement
        peak = estimated_peak_bytes(
            PRESETS[model], m.plan, m.samples, sequence_length=m.positions, precision="bf16"
        )
        if peak.accelerator_bytes <= _MEMORY:
            found.append(index)
    return found


def _chosen(
    prior: StepTimeModel, rows: Sequence[Measurement], points: int, candidates: Sequence[int]
) -> list[int]:
    """So many rows, each the most informative one after those before it were measured."""
    chosen: list[int] = []
    model = prior
    for _ in range(min(points, len(candidates))):
        # All shall be predicted, so all are candidates; chosen ones have little left to tell.
        order = most_informative(model, columns([rows[i] for i in candidates]), len(candidates))
        chosen.append(next(candidates[i] for i in order if candidates[i] not in chosen))
        model = fit([rows[i] for i in chosen], prior).model
    return chosen


# -- what is told ---------------------------------------------------------------------------------


def _summary(found: Sequence[Prediction]) -> str:
    if not found:
        return f"{'':33s}"
    errors = np.array([p.error for p in found])
    covered = np.mean([p.is_covered for p in found])
    return (
        f"{len(found):4d} {errors.mean():6.1%} {np.median(errors):6.1%} {errors.max():6.0%} "
        f"{covered:5.0%}"
    )


def _print_a800(title: str, found: Sequence[Prediction]) -> None:
    print(f"\n{title}")
    print(f"{'':9s}{'within a node':^33s}  {'across nodes':^33s}")
    head = "rows   mean median    max cover"
    print(f"{'':9s}{head:33s}  {head}")
    for model in (*SMALL, "all"):
        mine = [p for p in found if model in (p.model, "all")]
        within, across = _summary(_of(mine, False)), _summary(_of(mine, True))
        print(f"{model:9s}{within:33s}  {across}")
    errors = [
        np.array([p.published_error for p in _of(found, crosses)]) for crosses in (False, True)
    ]
    print(
        f"published, as shipped, 16 GB/s between nodes: {errors[0].mean():.1%} within, where it "
        f"was\nfitted; {errors[1].mean():.1%} across"
    )


def _of(found: Sequence[Prediction], crosses: bool) -> list[Prediction]:
    return [p for p in found if p.crosses == crosses]


def _print_doubts(folder: Path) -> None:
    errors = []
    for model in SMALL:
        rows = [row.measurement for row in rows_of(folder, model)]
        times = _published(folder, model, 2.0).seconds(columns(rows), _TASKS[model].forward)
        errors += [
            abs(float(t) / m.seconds - 1)
            for t, m in zip(times, rows, strict=True)
            if len(m.shares) > 1
        ]
    print(f"with the 2 GB/s that it ships: {np.mean(errors):.0%} across")
    print("\nDoubtful rows")
    for model in SMALL:
        for row in rows_of(folder, model):
            if row.doubt:
                print(f"  {model} {row.measurement}: {row.doubt}")


def _print_split(found: Sequence[Prediction]) -> None:
    print("\nA800, tensor and pipeline parallelism: each row left out once")
    print(f"{'':9s}rows   mean median    max cover")
    for model in (*SPLIT, "all"):
        print(f"{model:9s}{_summary([p for p in found if model in (p.model, 'all')])}")


def _print_seven(title: str, seven: Sequence[tuple[str, Sequence[Prediction]]]) -> None:
    print(f"\nH100, {title}")
    head = "rows   mean median    max cover"
    print(f"{'':33s}{head}   doubtful out")
    for name, found in seven:
        for model in (*H100, "all"):
            mine = [p for p in found if model in (p.model, "all")]
            sound = np.mean([p.error for p in mine if not p.doubt])
            print(f"{name:21s}{model:12s}{_summary(mine)}   {sound:.1%}")


def _print_doubts_of_ours() -> None:
    print("Doubtful rows of ours")
    for model in H100:
        for row in _evidence(model):
            if row.doubt:
                print(f"  {model} {row.measurement}: {row.doubt}")


def _print_speed(folder: Path) -> None:
    measurements = [row.measurement for row in rows_of(folder, "t5")]
    prior = prior_for(_sizes("t5"), precision="fp32")
    cold, fitted = _timed(lambda: fit(measurements, prior))
    warm, _ = _timed(lambda: fit(measurements, prior, fitted.model))
    many = columns(measurements).take(np.arange(4000) % len(measurements))
    whole, _ = _timed(lambda: fitted.model.predict(many))
    medians, _ = _timed(lambda: fitted.model.seconds(many))
    print(
        f"\nSpeed: a fit of {len(measurements)} rows {cold * 1e3:.0f} ms, again from it "
        f"{warm * 1e3:.0f} ms;\n{len(many) / whole / 1e3:.0f} predictions a millisecond with "
        f"intervals, {len(many) / medians / 1e3:.0f} without"
    )


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """The shortest of twenty times, and what came out."""
    begin = time.perf_counter()
    found = work()
    times = [time.perf_counter() - begin]
    for _ in range(19):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times), found


def _write(path: Path, found: Sequence[Prediction]) -> None:
    names = [field.name for field in fields(Prediction)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for prediction in found:
            values = [getattr(prediction, name) for name in names]
            writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in values])


def _bars(
    kept: Sequence[Prediction], sound: Sequence[Prediction], split: Sequence[Prediction]
) -> Iterator[Bar]:
    for crosses, where in ((False, "within a node"), (True, "across nodes")):
        for model in SMALL:
            every = [p for p in _of(kept, crosses) if p.model == model]
            good = [p for p in _of(sound, crosses) if p.model == model]
            yield Bar(
                where,
                model,
                float(np.mean([p.error for p in every])),
                float(np.mean([p.error for p in good])),
                float(np.mean([p.published_error for p in every])),
            )
    for model in SPLIT:
        mean = float(np.mean([p.error for p in split if p.model == model]))
        yield Bar("tensor and pipeline parallelism", model, mean, mean, None)


if __name__ == "__main__":
    main()
