"""Step times that were measured: the tables of Rubick's artifact (MLSys 2025).

A folder ``rubick/measured`` holds a ``<model>/placements.csv`` for each model, taken on servers of
eight A800. The artifact's names of plans are read so, with N accelerators:

=================  ======================  =====================================================
name               plan                    note
=================  ======================  =====================================================
``ga``             ``dpN``                 the column's name stands for plain data parallelism
``gc``             ``dpN-gc``
``zero-dp``        ``dpN-z2``              the paper means ZeRO-2 (section 2.1, footnote 1)
``zero-offload``   ``dpN-z2-offload``
three digits       ``dpD-tpT-ppP.1f1b-gaM`` pipeline, tensor, data parallel: 244 is pp2, tp4, dp4
=================  ======================  =====================================================

The artifact does not say how many micro-batches a pipeline had. M is as many as a replica has
samples, so micro-batches of one sample; without a pipeline there is one. M is a label only: the
times are those of the table.

A placement's digits are the accelerators of each node; their order means nothing: 17 is (7, 1).
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from controlplane.domain.job import JobSpec, Topology
from controlplane.domain.step_times import Shares, Way
from headrace.api.counted import counted
from headrace.api.plan import ExecutionPlan, PipelineSchedule

ACCELERATOR_TYPE = "nvidia-a800"
"""What the tables were measured on."""

ACCELERATORS_OF_A_NODE = 8

GLOBAL_BATCHES: Mapping[str, int] = {
    "vit": 64,
    "roberta": 64,
    "bert": 32,
    "t5": 16,
    "gpt2": 16,
    "llama7": 8,
    "llama30": 4,
}
"""Samples of a step of each model; the files do not say (Rubick's artifact, ``sched/models``)."""

OTHER_CONDITIONS = frozenset({"llama7b_bsz16", "t5_3B"})
"""Folders of the artifact that are no models of its workload: another batch, another T5."""

COLUMNS = ("exec_plan", "placement", "iter_time", "forward", "overlap_sync", "optimize")

_PHASES_IN_SECONDS = frozenset({"vit", "roberta"})
"""Models whose columns of phases are in seconds; elsewhere they are in milliseconds."""

_SECONDS_MAX = 3600.0
"""No step of these models takes an hour; what says so is in another unit."""

_CACHED_MAX = 4096


@dataclass(frozen=True, slots=True)
class MeasuredRow:
    """One row of a table.

    Attributes:
        model_type: The model.
        plan: Under which plan.
        shares: How the accelerators lay, most first.
        seconds: What a step took.
        forward_seconds: Of it the forward pass; None where the table does not tell.
        overlap_seconds: Backward pass and gradient exchange, which overlap; None likewise.
        optimizer_seconds: The optimizer; None likewise.
    """

    model_type: str
    plan: ExecutionPlan
    shares: Shares
    seconds: float
    forward_seconds: float | None = None
    overlap_seconds: float | None = None
    optimizer_seconds: float | None = None

    @property
    def can_be_placed(self) -> bool:
        """Whether its tensor-parallel groups are on one node each, as the control plane lays them
        out. Three rows of the tables are not (344 and 642 on eight times 6, 524 on eight times 5).
        """
        return all(share % self.plan.tensor_parallel == 0 for share in self.shares)


class MeasuredTable:
    """A ``StepTimes`` that knows what was measured and nothing else.

    Attributes:
        rows: All rows, those that cannot be placed included.
    """

    def __init__(
        self,
        rows: Iterable[MeasuredRow],
        batches: Mapping[str, int] = GLOBAL_BATCHES,
        kind: str = ACCELERATOR_TYPE,
    ) -> None:
        """Holds these rows, each (model, plan, shares) once.

        Args:
            rows: What was measured.
            batches: Samples of a step of each model.
            kind: Type of the accelerators; what is asked of another type is not known.
        """
        self.rows = tuple(rows)
        self._batches = dict(batches)
        self._kind = kind
        self._ways: dict[str, dict[tuple[ExecutionPlan, Shares], Way]] = {}
        for row in self.rows:
            if row.can_be_placed:
                known = self._ways.setdefault(row.model_type, {})
                key = (row.plan, row.shares)
                known[key] = Way(row.plan, row.shares, row.seconds, row.seconds)
        self._plans = {model: _best_first(known.values()) for model, known in self._ways.items()}
        # By the identity of a spec's plans: to hash a hundred plans takes longer than all the rest.
        # What is kept beside the answer keeps that identity from being given out again.
        self._asked: dict[tuple[object, ...], tuple[object, tuple[Way, ...]]] = {}

    @property
    def kind(self) -> str:
        """Type of the accelerators."""
        return self._kind

    @property
    def models(self) -> tuple[str, ...]:
        """The models, sorted."""
        return tuple(sorted(self._ways))

    def global_batch_size(self, model_type: str) -> int:
        """Samples of a step."""
        return self._batches[model_type]

    def plans(self, model_type: str) -> tuple[ExecutionPlan, ...]:
        """Every plan of the model, by size, the fastest of each size first."""
        return self._plans[model_type]

    def every_way(self, model_type: str) -> tuple[Way, ...]:
        """Everything known of the model; nothing if there is no such model."""
        return tuple(self._ways.get(model_type, {}).values())

    def ways(self, spec: JobSpec, kind: str) -> tuple[Way, ...]:
        """What was measured of the job's plans and sizes; see ``StepTimes``."""
        request = spec.accelerators
        key = (
            spec.model_type,
            id(spec.plans),
            spec.global_batch_size,
            spec.micro_batch_size_max,
            spec.elastic,
            request.minimum,
            request.maximum,
            request.topology,
            kind,
        )
        known = self._asked.get(key)
        if known is None:
            if len(self._asked) >= _CACHED_MAX:
                self._asked.clear()
            plans = frozenset(spec.plans)
            found = tuple(w for w in self._of(spec, kind).values() if _allows(spec, plans, w))
            known = self._asked[key] = (spec.plans, found)
        return known[1]

    def way(self, spec: JobSpec, kind: str, plan: ExecutionPlan, shares: Shares) -> Way | None:
        """What was measured of this plan on such shares; see ``StepTimes``."""
        known = self._of(spec, kind).get((plan, shares))
        if known is None or not _allows(spec, spec.plans, known):
            return None
        return known

    def _of(self, spec: JobSpec, kind: str) -> Mapping[tuple[ExecutionPlan, Shares], Way]:
        """All of the job's model; nothing for another type or batch, as neither was measured."""
        batch = self._batches.get(spec.model_type)
        if kind != self._kind or batch != spec.global_batch_size:
            return {}
        return self._ways.get(spec.model_type, {})


def _best_first(ways: Iterable[Way]) -> tuple[ExecutionPlan, ...]:
    fastest: dict[ExecutionPlan, float] = {}
    for way in ways:
        fastest[way.plan] = min(way.seconds, fastest.get(way.plan, way.seconds))
    return tuple(sorted(fastest, key=lambda plan: (plan.ranks, fastest[plan], str(plan))))


def _allows(spec: JobSpec, plans: Iterable[ExecutionPlan], way: Way) -> bool:
    plan, request = way.plan, spec.accelerators
    if not request.minimum <= plan.ranks <= request.maximum:
        return False
    if request.topology is Topology.SAME_NODE and len(way.shares) > 1:
        return False
    each, rest = divmod(spec.global_batch_size, plan.data_parallel * plan.accumulation_steps)
    if rest or (spec.micro_batch_size_max and each > spec.micro_batch_size_max):
        return False
    if not spec.plans:  # A job that names none is data parallel.
        rigid = not spec.elastic and plan.ranks != request.minimum
        return not rigid and plan == ExecutionPlan(plan.data_parallel, plan.accumulation_steps)
    return plan in plans


# -- names ------------------------------------------------------------------------------------

_FAMILY: Mapping[str, ExecutionPlan] = {
    "ga": ExecutionPlan(),
    "gc": ExecutionPlan(activation_checkpointing=True),
    "zero-dp": ExecutionPlan(zero_stage=2),
    "zero-offload": ExecutionPlan(zero_stage=2, offload=True),
}


def plan_named(name: str, accelerators: int, batch: int) -> ExecutionPlan:
    """The plan of the artifact's name; see the module's docstring.

    Args:
        name: As in ``exec_plan``.
        accelerators: On how many.
        batch: Samples of a step.

    Raises:
        ValueError: It is no such name, or means no plan on so many accelerators.
    """
    family = _FAMILY.get(name)
    if family is not None:
        plan = ExecutionPlan(
            accelerators,
            zero_stage=family.zero_stage,
            activation_checkpointing=family.activation_checkpointing,
            offload=family.offload,
        )
    elif len(name) == 3 and name.isascii() and name.isdigit() and "0" not in name:
        pipeline, tensor, data = map(int, name)
        if pipeline == tensor == 1:
            raise ValueError(f"plan {name} is data parallel, which is written ga")
        plan = ExecutionPlan(
            data,
            accumulation_steps=max(1, batch // data) if pipeline > 1 else 1,
            tensor_parallel=tensor,
            pipeline_parallel=pipeline,
            schedule=PipelineSchedule.ONE_F_ONE_B if pipeline > 1 else None,
        )
    else:
        raise ValueError(
            f"wanted {', '.join(_FAMILY)} or three digits from 1 to 9 (pipeline, tensor, data "
            f"parallel), got plan {name!r}"
        )
    if plan.ranks != accelerators:
        raise ValueError(
            f"plan {name} takes {counted(plan.ranks, 'accelerator')}, here are {accelerators}"
        )
    if batch % (plan.data_parallel * plan.accumulation_steps):
        raise ValueError(f"a batch of {batch} does not divide by the replicas of {plan}")
    return plan


def name_of(plan: ExecutionPlan) -> str:
    """The artifact's name of a plan; its short form where the artifact has none."""
    for name, family in _FAMILY.items():
        if plan == ExecutionPlan(
            plan.data_parallel,
            zero_stage=family.zero_stage,
            activation_checkpointing=family.activation_checkpointing,
            offload=family.offload,
        ):
            return name
    sizes = (plan.pipeline_parallel, plan.tensor_parallel, plan.data_parallel)
    plain = not (plan.zero_stage or plan.offload or plan.activation_checkpointing)
    if plain and max(sizes) <= 9 and sizes[:2] != (1, 1):
        return "".join(map(str, sizes))
    return str(plan)


def shares_named(digits: str) -> Shares:
    """The shares of a placement's digits.

    Raises:
        ValueError: They are not digits from 1 to 8.
    """
    if not digits or any(each not in "12345678" for each in digits):
        raise ValueError(
            f"wanted a placement of digits from 1 to {ACCELERATORS_OF_A_NODE}, one for each node, "
            f"got {digits!r}"
        )
    return tuple(sorted(map(int, digits), reverse=True))


# -- files ------------------------------------------------------------------------------------


def read_table(folder: Path) -> MeasuredTable:
    """The tables of all models in ``folder`` (``rubick/measured``).

    Raises:
        ValueError: A file is not such a table; with the file and the line.
        OSError: A file cannot be read.
    """
    files = sorted(folder.glob("*/placements.csv"))
    files = [file for file in files if file.parent.name not in OTHER_CONDITIONS]
    if not files:
        raise ValueError(
            f"{folder}: wanted a folder with <model>/placements.csv for some of "
            f"{', '.join(GLOBAL_BATCHES)}, found none"
        )
    return MeasuredTable([row for file in files for row in read_rows(file)])


def read_rows(file: Path) -> list[MeasuredRow]:
    """The rows of one model's table; the model is the name of the file's folder.

    Raises:
        ValueError: It is not such a table; with the file and the line.
        OSError: It cannot be read.
    """
    model = file.parent.name
    if model not in GLOBAL_BATCHES:
        raise ValueError(
            f"{file}: the batch of model {model!r} is not known; known are "
            f"{', '.join(GLOBAL_BATCHES)}"
        )
    rows: list[MeasuredRow] = []
    lines: dict[tuple[ExecutionPlan, Shares], int] = {}
    with file.open(encoding="utf-8-sig", newline="") as opened:
        reader = csv.reader(opened, strict=True)
        for line, cells in _records(reader, file):
            try:
                row = _row(model, cells)
            except ValueError as error:
                raise ValueError(f"{file}:{line}: {error}") from error
            first = lines.setdefault((row.plan, row.shares), line)
            if first != line:
                raise ValueError(
                    f"{file}:{line}: {name_of(row.plan)} on {''.join(map(str, row.shares))} was "
                    f"measured in line {first} already"
                )
            rows.append(row)
    if not rows:
        raise ValueError(f"{file}: wanted rows below {','.join(COLUMNS)}, found none")
    return rows


def _records(reader: Iterator[list[str]], file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Each line's number and cells by column; blank lines are passed over."""
    try:
        head = next(reader, [])
        if tuple(head) != COLUMNS:
            raise ValueError(f"{file}:1: wanted {','.join(COLUMNS)}, got {','.join(head)}")
        for line, cells in enumerate(reader, start=2):
            if not cells:
                continue
            if len(cells) != len(COLUMNS):
                raise ValueError(f"{file}:{line}: wanted {len(COLUMNS)} cells, got {len(cells)}")
            yield line, dict(zip(COLUMNS, cells, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not a CSV file: {error}") from error


def _row(model: str, cells: Mapping[str, str]) -> MeasuredRow:
    shares = shares_named(cells["placement"])
    plan = plan_named(cells["exec_plan"], sum(shares), GLOBAL_BATCHES[model])
    seconds = _number("iter_time", cells)
    if not 0 < seconds <= _SECONDS_MAX:
        raise ValueError(
            f"iter_time: wanted seconds above 0 and up to {_SECONDS_MAX:g}, got "
            f"{cells['iter_time']}"
        )
    unit = 1.0 if model in _PHASES_IN_SECONDS else 1e-3
    forward, overlap, optimizer = (_phase(name, cells, unit) for name in COLUMNS[3:])
    return MeasuredRow(model, plan, shares, seconds, forward, overlap, optimizer)


def _phase(name: str, cells: Mapping[str, str], unit: float) -> float | None:
    """A phase in seconds; None for 0, which the files write for what was not told."""
    value = _number(name, cells)
    if value < 0:
        raise ValueError(f"{name}: wanted a time, got {cells[name]}")
    return value * unit if value else None


def _number(name: str, cells: Mapping[str, str]) -> float:
    try:
        value = float(cells[name])
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise ValueError(f"{name}: wanted a number, got {cells[name]!r}")
    return value
