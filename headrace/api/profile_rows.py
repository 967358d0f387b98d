"""What a profile is made of: a row for each plan, a row for each way between devices.

Of several rows for the same thing the last one counts. Times are seconds, sizes bytes, rates per
second.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from math import isfinite
from typing import Any

from headrace.api.accelerator_type import type_label
from headrace.api.models import ModelShape
from headrace.api.plan import ExecutionPlan


class Status(StrEnum):
    """What became of a plan."""

    MEASURED = "measured"
    OUT_OF_MEMORY = "out-of-memory"
    INFEASIBLE = "infeasible"
    FAILED = "failed"
    SWITCH_FAILED = "switch-failed"
    """Changing to it failed, so it is tried again from the beginning."""
    NOT_MEASURED = "not-measured"


TEXT_CHARACTERS_MAX = 300
"""Longest text in a row."""

INTEGER_MAX = 2**63 - 1
"""Largest number that what stores and carries rows has room for."""

RETRIED = frozenset({Status.SWITCH_FAILED, Status.NOT_MEASURED})
"""What a later run measures again."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is measured; equal rows of another run need not be measured again.

    Attributes:
        model: Preset.
        accelerators: Accelerators in all.
        global_batch: Samples of a step.
        sequence_length: Positions of a sample.
        precision: ``fp32`` or ``bf16``.
    """

    model: str
    accelerators: int
    global_batch: int
    sequence_length: int
    precision: str


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured, and with what.

    Attributes:
        device: Name of the accelerators.
        cpu_threads: Threads of a rank; an optimizer in host memory runs on them.
    """

    device: str
    cpu_threads: int
    torch: str
    cuda: str
    nccl: str
    driver: str
    headrace: str


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One plan. What was not measured is None.

    Of times and sizes, that of the rank where it is largest.

    Attributes:
        plan: Short form.
        placement: Accelerators that it used of each node, joined by ``+``.
        reason: Why it has no figures; empty if it has.
        parameters: Of the model.
        steps: Steps that were measured, after the warm-up.
        iteration: Median time of a step; ``iteration_lower`` and ``_upper`` are its quartiles.
        forward: Forward passes and loss of all micro-batches.
        backward_communication: The rest of what makes gradients.
        optimizer: The update.
        offload: Weights to the device and gradients back, as often as a step does, copied alone
            with nothing to overlap; 0 without offload.
        peak_allocated: Peak of the allocator in steps; of resident memory on a CPU.
        peak_process: Peak of the process as NVML sees it; of resident memory on a CPU.
        host: Peak of resident host memory.
        switch_build: Of the change from the plan of the row before, see ``Breakdown``; None where
            the run began with this plan.
        stood_still: All of the change, and by how much the first step was slower.
        tokens_rate: Tokens a second.
        flops_rate: Achieved by each accelerator; see `step_flops`.
        share_of_peak: Of what the device can do in this precision.
        date: UTC, in ISO form.
    """

    asked: Asked
    plan: str
    status: Status
    placement: str = ""
    reason: str = ""
    parameters: int = 0
    steps: int = 0
    iteration: float | None = None
    iteration_lower: float | None = None
    iteration_upper: float | None = None
    forward: float | None = None
    backward_communication: float | None = None
    optimizer: float | None = None
    offload: float | None = None
    peak_allocated: int | None = None
    peak_process: int | None = None
    host: int | None = None
    switch_build: float | None = None
    switch_parameters: float | None = None
    switch_equip: float | None = None
    switch_moments: float | None = None
    stood_still: float | None = None
    tokens_rate: float | None = None
    flops_rate: float | None = None
    share_of_peak: float | None = None
    machine: Machine | None = None
    date: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is about."""
        return ("plan", self.asked, self.plan)

    @property
    def switch(self) -> float | None:
        """All of the change to it."""
        parts = (
            self.switch_build,
            self.switch_parameters,
            self.switch_equip,
            self.switch_moments,
        )
        known = [part for part in parts if part is not None]
        return sum(known) if known else None


@dataclass(frozen=True, slots=True)
class LinkRow:
    """How fast bytes go from one place to another.

    Attributes:
        link: ``all-reduce`` (bus bandwidth), ``point-to-point``, ``host-to-device`` or
            ``device-to-host`` (pinned memory).
        accelerators: Ranks that took part.
        size: Bytes of one transfer.
        seconds: Median time of one.
        bandwidth: Bytes a second; of an all-reduce what each link carries, 2(n-1)/n of its size.
    """

    link: str
    accelerators: int
    size: int
    seconds: float
    bandwidth: float
    machine: Machine
    date: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is about."""
        return ("link", self.link, self.accelerators, self.machine.device)


Row = PlanRow | LinkRow


def flat(row: Row) -> dict[str, Any]:
    """A row without nesting, as it is stored."""
    found: dict[str, Any] = {"kind": "plan" if isinstance(row, PlanRow) else "link"}
    for name, value in asdict(row).items():
        found |= value if isinstance(value, dict) else {name: value}
    found.pop("machine", None)  # where a row has none
    return found


def row_of(stored: Mapping[str, Any]) -> Row:
    """A row as `flat` gave it.

    Raises:
        KeyError: A part is missing.
        TypeError: A part is of the wrong kind.
        ValueError: A part has no sense.
    """
    machine = Machine(**_parts(Machine, stored)) if stored.get("device") else None
    if stored["kind"] == "link":
        if machine is None:
            raise ValueError("wanted the device of a link, got none")
        return LinkRow(machine=machine, **_parts(LinkRow, stored))
    parts = _parts(PlanRow, stored)
    parts["status"] = Status(parts["status"])
    return PlanRow(asked=Asked(**_parts(Asked, stored)), machine=machine, **parts)


def _parts(
    kind: type[Asked] | type[Machine] | type[PlanRow] | type[LinkRow], stored: Mapping[str, Any]
) -> dict[str, Any]:
    return {field.name: stored[field.name] for field in fields(kind) if field.name in stored}


def latest(rows: Iterable[Row]) -> list[Row]:
    """The last row about each thing, in the order in which the things came up."""
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        found[row.key] = row
    return list(found.values())


def step_flops(shape: ModelShape, samples: int, positions: int) -> float:
    """Arithmetic operations of a step, by the usual count (PaLM, appendix B).

    ``6 * parameters * tokens`` for multiplying with the weights forward and backward, and
    ``12 * attentions * heads * width of a head * positions * tokens`` for scores and their use,
    masked or not. Nothing is counted twice that is computed again.
    """
    tokens = samples * positions
    attentions = shape.layers + 2 * shape.decoder_layers
    scores = 12 * attentions * shape.heads * shape.width_of_head * positions
    return float(tokens) * (6 * shape.parameters + scores)


_PEAKS: Mapping[str, Mapping[str, float]] = {
    "NVIDIA H100 80GB HBM3": {"bf16": 989e12, "fp32": 67e12},
    "NVIDIA H200": {"bf16": 989e12, "fp32": 67e12},
    "NVIDIA H100 PCIe": {"bf16": 756e12, "fp32": 51e12},
    "NVIDIA A100-SXM4-80GB": {"bf16": 312e12, "fp32": 19.5e12},
    "NVIDIA A100-SXM4-40GB": {"bf16": 312e12, "fp32": 19.5e12},
    "NVIDIA A100 80GB PCIe": {"bf16": 312e12, "fp32": 19.5e12},
}
"""Dense operations a second of known devices, as their makers print them."""


def peak_flops(device: str, precision: str) -> float | None:
    """What a device can do at best; None if it is not known."""
    return _PEAKS.get(device, {}).get(precision)


def device_labelled(label: str) -> str:
    """The known device that nodes label so; the label itself if none is."""
    return next((device for device in _PEAKS if type_label(device) == label), label)


def with_rates(row: PlanRow, shape: ModelShape) -> PlanRow:
    """A measured row with what follows from its iteration for a model of this shape."""
    asked, machine = row.asked, row.machine
    assert row.iteration is not None
    assert machine is not None
    flops = step_flops(shape, asked.global_batch, asked.sequence_length)
    rate = flops / row.iteration / ExecutionPlan.parse(row.plan).ranks
    peak = peak_flops(machine.device, asked.precision)
    return replace(
        row,
        tokens_rate=asked.global_batch * asked.sequence_length / row.iteration,
        flops_rate=rate,
        share_of_peak=rate / peak if peak else None,
    )


def unsound_in(row: PlanRow) -> str:
    """The first part of a row that no measurement gives (of another type, negative, not finite, or
    a text longer than any name); empty if all can be. For rows that someone else's process wrote.
    """
    parts = {**_types(row), **_types(row.asked), **(_types(row.machine) if row.machine else {})}
    for name, (value, kind) in parts.items():
        if isinstance(value, str):
            sound = kind in (str, Status) and len(value) <= TEXT_CHARACTERS_MAX
        elif isinstance(value, int | float):
            fits = kind in (float | None, type(value), type(value) | None)
            sound = fits and isfinite(value) and 0 <= value <= INTEGER_MAX
        else:
            sound = isinstance(value, kind)
        if not sound:
            return name
    return ""


def _types(part: PlanRow | Asked | Machine) -> dict[str, tuple[Any, Any]]:
    return {field.name: (getattr(part, field.name), field.type) for field in fields(part)}
