"""Step times for tests: small tables, as a measured one would be."""

from collections.abc import Iterable
from dataclasses import replace

from controlplane.domain.job import JobSpec
from controlplane.domain.step_times import Shares, Way
from headrace.api.plan import ExecutionPlan
from tests.builders import JobBuilder, a_job

KIND = "a800"


class Table:
    """Knows the steps of a few models; see ``StepTimes``. Of others it knows nothing."""

    def __init__(self, rows: Iterable[tuple[str, str, Shares, float]], kind: str = KIND) -> None:
        """Holds (model type, plan, shares, seconds) of accelerators of one type."""
        self._kind = kind
        self._ways: dict[str, list[Way]] = {}
        for model, plan, shares, seconds in rows:
            way = Way(ExecutionPlan.parse(plan), shares, seconds, seconds)
            self._ways.setdefault(model, []).append(way)

    def ways(self, spec: JobSpec, kind: str) -> tuple[Way, ...]:
        request = spec.accelerators
        known = self._ways.get(spec.model_type, []) if kind == self._kind else []
        return tuple(
            way
            for way in known
            if request.minimum <= way.accelerators <= request.maximum
            and (not spec.plans or way.plan in spec.plans)
        )

    def plans(self, model: str) -> tuple[ExecutionPlan, ...]:
        """Every plan of a model, by size."""
        every = dict.fromkeys(way.plan for way in self._ways[model])
        return tuple(sorted(every, key=lambda plan: plan.ranks))

    def way(self, spec: JobSpec, kind: str, plan: ExecutionPlan, shares: Shares) -> Way | None:
        every = self.ways(spec, kind)
        return next((w for w in every if (w.plan, w.shares) == (plan, shares)), None)


def data_parallel(
    model: str, *seconds: float, suffix: str = ""
) -> list[tuple[str, str, Shares, float]]:
    """Of one node's 1, 2, 4 and 8 accelerators."""
    sizes = (1, 2, 4, 8)[: len(seconds)]
    return [
        (model, f"dp{size}{suffix}", (size,), each)
        for size, each in zip(sizes, seconds, strict=True)
    ]


A800 = Table(
    [
        *data_parallel("vit", 0.153556655, 0.087954703, 0.062786846, 0.049219244),
        *data_parallel("bert", 0.657094737, 0.365352632, 0.225673684, 0.157684211),
        *data_parallel("t5", 1.1014, 0.611389474, 0.408447368, 0.320078947),
        *data_parallel("t5", 1.081, 0.592431579, 0.335136842, 0.241215789, suffix="-z2"),
        *data_parallel("gpt2", 3.6161, 1.8805, 0.9575, 0.530168421, suffix="-z2"),
        ("gpt2", "tp5", (5,), 1.036673684),
        ("t5", "dp8", (4, 4), 0.466521053),
        ("vit", "dp4", (2, 2), 0.083114217),
        ("llama7", "dp2-tp4-pp2.1f1b-ga4", (8, 8), 1.345910526),
        ("llama7", "dp2-tp4-pp2.1f1b-ga4", (4, 4, 4, 4), 1.6486),
        ("llama7", "dp4-tp4-pp2.1f1b-ga2", (8, 8, 8, 8), 0.943142105),
        ("llama7", "dp8-tp4-pp2.1f1b", (8,) * 8, 0.672942105),
        ("llama7", "dp2-tp8", (8, 8), 1.130784211),
        ("llama30", "dp4-tp2-pp5.1f1b", (8,) * 5, 2.661776190),
        ("llama30", "tp4-pp6.1f1b-ga4", (4,) * 6, 5.296528571),
        ("llama30", "dp2-tp4-pp6.1f1b-ga2", (8,) * 6, 2.741557143),
    ]
)
"""Some of what Rubick's artifact measured on servers of eight A800."""


def a_measured_job(name: str, model: str, plan: str) -> JobBuilder:
    """A job of a trace: it asks for this plan and may have any of its model's."""
    asked = ExecutionPlan.parse(plan)
    plans = A800.plans(model)
    sizes = [each.ranks for each in plans]
    job = a_job(name).wanting(1, max(sizes))
    spec = job.job.spec
    request = replace(spec.accelerators, type=KIND, requested=asked.ranks)
    spec = replace(spec, accelerators=request, plans=plans, model_type=model, requested_plan=asked)
    return JobBuilder(replace(job.job, spec=spec))
