"""Step times of one formula, and jobs that ask for them."""

from dataclasses import dataclass, replace

from controlplane.domain.job import JobSpec, ServiceClass
from controlplane.domain.step_times import Shares, Way
from headrace.api.plan import ExecutionPlan
from tests.builders import JobBuilder, a_job

LAYOUTS: tuple[Shares, ...] = ((1,), (2,), (1, 1), (4,), (2, 2), (8,), (4, 4), (8, 8), (4,) * 4)


def plan_on(shares: Shares) -> ExecutionPlan:
    """Data parallel over them."""
    return ExecutionPlan(data_parallel=sum(shares))


@dataclass(frozen=True)
class Scaling:
    """A step takes ``seconds`` on one accelerator, and ``seconds / n ** exponent`` on ``n``; each
    node more costs a fifth of that.
    """

    seconds: float = 1.0
    exponent: float = 0.8
    layouts: tuple[Shares, ...] = LAYOUTS
    faster: tuple[tuple[str, float], ...] = ()

    def ways(self, spec: JobSpec, kind: str) -> tuple[Way, ...]:
        """All layouts that the job's sizes allow."""
        if not spec.model_type:
            return ()
        ways = (self.way(spec, kind, plan_on(shares), shares) for shares in self.layouts)
        return tuple(way for way in ways if way is not None)

    def way(self, spec: JobSpec, kind: str, plan: ExecutionPlan, shares: Shares) -> Way | None:
        """One of them."""
        request, count = spec.accelerators, sum(shares)
        able = request.minimum <= count <= request.maximum
        if not able or shares not in self.layouts or plan != plan_on(shares):
            return None
        speed = dict(self.faster).get(kind, 1.0)
        seconds = self.seconds / count**self.exponent / speed * (1 + 0.2 * (len(shares) - 1))
        return Way(plan, shares, seconds, seconds)


def a_known_job(
    name: str, most: int = 8, steps: int = 1000, asked: int = 1, *, guaranteed: bool = False
) -> JobBuilder:
    """A job of a model whose step times are known, elastic from one accelerator on."""
    builder = a_job(name).wanting(1, most)
    spec = replace(
        builder.job.spec,
        model_type="model",
        steps=steps,
        global_batch_size=64,
        plans=tuple(plan_on((n,)) for n in (1, 2, 4, 8, 16) if n <= most),
        accelerators=replace(builder.job.spec.accelerators, requested=asked),
        service_class=ServiceClass.GUARANTEED if guaranteed else ServiceClass.BEST_EFFORT,
    )
    return JobBuilder(replace(builder.job, spec=spec))
