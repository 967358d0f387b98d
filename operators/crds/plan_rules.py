"""What the API server checks of execution plans: all that can be said without a model's sizes."""

from headrace.api.models import SPLITTABLE
from operators.crds.rule import Rule


def _size(plan: str, part: str) -> str:
    """The number behind a part of a plan, in CEL; 1 where the plan does not have it."""
    number = f"int({plan}.find('{part}[0-9]+').substring({len(part)}))"
    return f"({plan}.contains('{part}') ? {number} : 1)"


_RANKS = " * ".join(_size("plan", part) for part in ("dp", "tp", "pp"))
_PARTS = f"{_size('plan', 'dp')} * {_size('plan', 'ga')}"
_MOST = "(has(self.accelerators.maximum) ? self.accelerators.maximum : self.accelerators.minimum)"
_UNPLANNED = "!has(self.plans) || "
_UNTRAINED = "!has(self.plans) || !has(self.training) || "
_IS_SPLIT = "(self.contains('tp') || self.contains('pp'))"
_IS_ZERO_BUBBLE = "self.contains('.zb')"

RULES_OF_PLANS = (
    Rule(
        # The list of one is how CEL gives a name to a number that is used twice.
        f"{_UNPLANNED}self.plans.all(plan, [{_RANKS}].all(ranks, "
        f"ranks >= self.accelerators.minimum && ranks <= {_MOST}))",
        "wanted plans that take at least the minimum and at most the maximum of accelerators",
        ".plans",
    ),
    Rule(
        f"{_UNTRAINED}self.plans.all(plan, self.training.globalBatchSize % ({_PARTS}) == 0)",
        "wanted a global batch that the replicas times the micro-batches of each plan divide",
        ".plans",
    ),
    Rule(
        f"{_UNTRAINED}!has(self.training.microBatchSizeMax) || self.plans.all(plan, "
        f"self.training.globalBatchSize / ({_PARTS}) <= self.training.microBatchSizeMax)",
        "wanted plans whose micro-batches have at most microBatchSizeMax samples",
        ".plans",
    ),
    Rule(
        f"{_UNPLANNED}!has(self.script) || self.plans.all(plan, !plan.contains('pp'))",
        "wanted data or tensor parallelism, ZeRO or offload for training code of your own: its "
        "step runs the whole model, so no rank can hold one stage only",
        ".plans",
    ),
    Rule(
        f"{_UNPLANNED}!has(self.model) || self.model.name in "
        f"[{', '.join(repr(str(family)) for family in sorted(SPLITTABLE))}] || "
        "self.plans.all(plan, !plan.contains('tp') && !plan.contains('pp'))",
        f"only {' and '.join(sorted(SPLITTABLE))} are split by tensors or stages",
        ".plans",
    ),
)
"""Of ``spec``, which has the accelerators and the batch."""

RULES_OF_EACH_PLAN = (
    Rule(
        f"!self.contains('z1') || !({_IS_SPLIT} || self.contains('offload'))",
        "wanted ZeRO-1 with replicas only; with tensor or pipeline parallelism or offload take z2 "
        "or z3",
    ),
    Rule(
        "!self.contains('offload') || self.contains('z2') || self.contains('z3')",
        "wanted ZeRO-2 or 3 with offload; take z2 or z3, on one rank too",
    ),
    Rule(
        f"!self.contains('offload') || !{_IS_SPLIT}",
        "wanted offload with replicas only; leave out offload, or tensor and pipeline parallelism",
    ),
    Rule(
        f"!self.matches('-z[1-3]') || self.contains('offload') || {_size('self', 'dp')} > 1",
        "wanted two replicas or more, among which ZeRO shares",
    ),
    Rule(
        f"!{_IS_ZERO_BUBBLE} || !self.contains('z3')",
        "wanted the zb schedule without ZeRO-3; take z2 or another schedule",
    ),
    Rule(
        f"!{_IS_ZERO_BUBBLE} || !self.matches('-gc')",
        "wanted the zb schedule without activation checkpointing; leave out gc or take another "
        "schedule",
    ),
    Rule(
        f"!self.contains('.gpipe') || {_size('self', 'ga')} >= 2",
        "wanted 2 micro-batches or more for the gpipe schedule; take for example ga2",
    ),
    Rule(
        f"!self.contains('.1f1b') || {_size('self', 'ga')} >= {_size('self', 'pp')}",
        "wanted at least as many micro-batches as ranks for the 1f1b schedule; pp2.1f1b-ga2 has "
        "them",
    ),
    Rule(
        f"!(self.contains('.interleaved') || {_IS_ZERO_BUBBLE}) || "
        f"{_size('self', 'ga')} % {_size('self', 'pp')} == 0",
        "wanted a multiple of the ranks in micro-batches for the interleaved and the zb schedule; "
        "pp2.zb-ga2 has it",
    ),
)
"""Of an entry of ``spec.plans``."""
