"""`headrace plans`: which plans a model has room for, and what keeps the others from running."""

import json
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from headrace.api.counted import counted
from headrace.api.feasible_plans import (
    Hardware,
    Infeasible,
    InfeasibleReason,
    infeasible,
    judged_plans,
)
from headrace.api.manifest_fields import quantity_bytes
from headrace.api.memory import GIB, PRECISIONS, PeakMemory, estimated_peak_bytes
from headrace.api.models import PRESETS, Family, ModelShape, resized
from headrace.api.plan import ExecutionPlan
from headrace.cli import views
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.output import Format, document, note, say, table, width
from headrace.cli.tables import Column

_MEMORY_MIN = 2**20
"""Who asks for less forgot the unit."""

_COLUMNS = (Column("PLAN", gives_way=1), Column("GIB", right=True), Column("HOST GIB", right=True))


@dataclass(frozen=True, slots=True)
class Question:
    """What the command line asks; 0 and empty leave it to the rule.

    Attributes:
        model: Preset, or a file that Hugging Face calls ``config.json``.
        accelerators: Of the plans.
        batch: Samples of a step.
        sequence_length: Tokens of a sample.
        memory: Of one accelerator, as a quantity; without it nothing is too large.
        precision: ``fp32`` or ``bf16``.
        plans: Only these.
        everything: Whether those that cannot run are told too.
    """

    model: str
    accelerators: int
    batch: int
    sequence_length: int = 0
    memory: str = ""
    precision: str = "fp32"
    plans: Sequence[str] = ()
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """A plan, what it needs (None where it divides nothing), and why it cannot run, if so."""

    plan: ExecutionPlan
    peak: PeakMemory | None
    problem: Infeasible | None


def plans(question: Question, output: Format) -> None:
    """Print the plans that can run, in the order of `feasible_plans`.

    Raises:
        CommandError: The model, a plan or the memory is not one.
    """
    judged = list(_judged(question))
    all_told = question.everything or bool(question.plans)
    chosen = [each for each in judged if all_told or each.problem is None]
    match output:
        case Format.JSON | Format.YAML:
            document(views.listed([_document(each) for each in chosen], "Plan"), output)
        case Format.NAME:
            for each in chosen:
                say(str(each.plan))
        case _:
            _show(chosen, wide=output is Format.WIDE)
            if not all_told:
                _note_others(judged)


def preset(name: str, sequence_length: int = 0) -> ModelShape:
    """The shape that a preset names.

    Args:
        name: Its full name.
        sequence_length: Tokens of a sample; 0 for the preset's.

    Raises:
        CommandError: There is none of this name.
    """
    shape = PRESETS.get(name)
    if shape is None:
        raise CommandError(
            ExitCode.USAGE, f"wanted one of the models {', '.join(PRESETS)}; got {name}"
        )
    return _at_length(shape, sequence_length)


def _at_length(shape: ModelShape, sequence_length: int) -> ModelShape:
    if not sequence_length or shape.family is Family.VIT:
        return shape
    return resized(shape, sequence_length=sequence_length)


def _shape(question: Question) -> ModelShape:
    """That of a preset or of a file."""
    if not question.model.endswith(".json"):
        return preset(question.model, question.sequence_length)
    try:
        told = json.loads(Path(question.model).read_text("utf-8"))
        return _at_length(ModelShape.from_hugging_face(told), question.sequence_length)
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, f"{question.model}: {error}") from error


def _judged(question: Question) -> Iterator[Judged]:
    shape, batch, precision = _shape(question), question.batch, question.precision
    if precision not in PRECISIONS:
        raise CommandError(
            ExitCode.USAGE, f"--precision: wanted {' or '.join(PRECISIONS)}, got {precision!r}"
        )
    hardware = Hardware(_bytes(question.memory)) if question.memory else None
    judged: Iterable[tuple[ExecutionPlan, Infeasible | None]]
    if question.plans:
        judge = partial(
            infeasible, shape, global_batch_size=batch, precision=precision, hardware=hardware
        )
        judged = [(plan, judge(plan)) for plan in _named(question)]
    else:
        judged = judged_plans(shape, question.accelerators, batch, hardware, precision=precision)
    for plan, problem in judged:
        has_form = problem is None or problem.reason is InfeasibleReason.DOES_NOT_FIT
        peak = estimated_peak_bytes(shape, plan, batch, precision=precision) if has_form else None
        yield Judged(plan, peak, problem)


def _named(question: Question) -> list[ExecutionPlan]:
    try:
        found = [ExecutionPlan.parse(text) for text in question.plans]
    except ValueError as error:
        raise CommandError(ExitCode.USAGE, f"--plans: {error}") from error
    for plan in found:
        if plan.ranks != question.accelerators:
            raise CommandError(
                ExitCode.USAGE,
                f"--plans: wanted plans of {counted(question.accelerators, 'accelerator')}, got "
                f"{plan} of "
                f"{plan.ranks}; name their number with --accelerators",
            )
    return list(dict.fromkeys(found))


def _bytes(text: str) -> int:
    try:
        found = quantity_bytes(text.removesuffix("B"))
    except ValueError:
        found = 0
    if not isinstance(found, int) or found < _MEMORY_MIN:
        raise CommandError(
            ExitCode.USAGE, f"--memory: wanted that of one accelerator, such as 80GiB, got {text!r}"
        )
    return found


def _show(chosen: Sequence[Judged], *, wide: bool) -> None:
    """The table of those whose need is known, and a sentence for each that cannot run."""
    sized = [(each.plan, each.peak) for each in chosen if each.peak is not None]
    parts = [name for name, _ in sized[0][1].parts()] if sized and wide else []
    columns = (*_COLUMNS, *(Column(name.upper(), right=True) for name in parts))
    if sized:
        table(columns, [_row(plan, peak, wide=wide) for plan, peak in sized], wide=wide)
    for each in chosen:
        if each.problem is not None:
            told = f"{each.plan}: {each.problem.reason}: {each.problem.message}"
            for line in [told] if wide else _folded(told):
                say(line)


def _folded(line: str) -> list[str]:
    """In pieces that fit the terminal; names of plans stay whole."""
    return textwrap.wrap(
        line, width(), subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )


def _row(plan: ExecutionPlan, peak: PeakMemory, *, wide: bool) -> list[str]:
    parts = [size for _, size in peak.parts()] if wide else []
    sizes = (peak.accelerator_bytes, peak.host_bytes, *parts)
    return [str(plan), *(f"{size / GIB:.1f}" for size in sizes)]


def _note_others(judged: Sequence[Judged]) -> None:
    """How many cannot run, and of those that are only too large, the one that nearly fits."""
    problems = [(each.plan, each.problem) for each in judged if each.problem is not None]
    if len(problems) == len(judged):
        large = [each for each in problems if each[1].missing_bytes]
        if large:
            plan, problem = min(large, key=lambda each: each[1].missing_bytes)
            note(f"headrace: {plan} is the nearest: {problem.message}")
    if problems:
        counts = Counter(str(problem.reason) for _, problem in problems)
        told = ", ".join(f"{count} are {reason}" for reason, count in counts.most_common())
        able = len(judged) - len(problems)
        note(
            f"headrace: {able} of {counted(len(judged), 'plan')} can run; of the others {told}; "
            "--all tells "
            "each with its reason"
        )


def _document(judged: Judged) -> dict[str, Any]:
    told: dict[str, Any] = {
        "plan": str(judged.plan),
        "accelerators": judged.plan.ranks,
        "feasible": judged.problem is None,
    }
    if judged.peak is not None:
        told["acceleratorBytes"] = judged.peak.accelerator_bytes
        told["hostBytes"] = judged.peak.host_bytes
        told["parts"] = dict(judged.peak.parts())
    if judged.problem is not None:
        told["reason"] = str(judged.problem.reason)
        told["message"] = judged.problem.message
    return told
