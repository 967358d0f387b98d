"""What steps take by models that were fitted to what jobs told, or that know only what sizes and
hardware say: ``StepTimes`` of a live cluster.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf
from operator import itemgetter

from controlplane.domain.any_plan import plans_to_choose
from controlplane.domain.job import JobSpec, Topology
from controlplane.domain.memory import Memory, estimated
from controlplane.domain.model_type import type_named
from controlplane.domain.offering import accelerators_offered, plans_of, sizes
from controlplane.domain.snapshot import ClusterSnapshot
from controlplane.domain.step_time_fit import StepTimeFit, fit_key
from controlplane.domain.step_times import Shares, Way
from controlplane.rubick.configurations import Configurations
from controlplane.rubick.fits import as_model, donor_of, prior_of
from controlplane.rubick.knowing import PLANS_OF_A_PLACE, Beliefs
from controlplane.rubick.step_time import StepTimeModel
from headrace.api.plan import ExecutionPlan, PipelineSchedule

_NODE_SIZES_LOOKED_AT = 3
_GUESSED_EXPONENT = 0.8
"""How steps of which nothing is known are taken to become faster with more accelerators: of a
script, a command, or a model whose sizes only the nodes know. From 1 s on one; the upper end of
what is predicted is infinite, which says that it is a guess."""

_WITHOUT_OWN_MEMORY = "cpu"
"""Slots of a processor: what would be moved to the host is there already."""

_UNTOLD: frozenset[Memory | None] = frozenset()

_Pair = tuple[ExecutionPlan, Shares]

NodeSizes = tuple[tuple[int, int], ...]
"""How many nodes have so many accelerators or more: (accelerators, nodes), the largest first."""


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """What predicts the steps of a type of model on a type of accelerator.

    Attributes:
        model: The model.
        cpu_threads: Of a rank.
    """

    model: StepTimeModel
    cpu_threads: float


@dataclass(frozen=True, slots=True)
class _Question:
    """All that the ways of a job depend on, but for what predicts them.

    Attributes:
        plans: Among which to choose.
        any_will_do: Whether of each layout the fastest plan will do: the job names none.
        minimum: Fewest accelerators.
        maximum: Most accelerators.
        topology: How far apart they may be.
        samples: Global batch.
        model: The job's ``model``, from which memory is estimated.
        nodes: Of the type.
        memory: What the accelerators of the type tell of theirs.
        offloads: Whether there is memory to offload to that is not the accelerators' own.
    """

    plans: tuple[ExecutionPlan, ...]
    any_will_do: bool
    minimum: int
    maximum: int
    topology: Topology
    samples: int
    model: str
    nodes: NodeSizes
    memory: frozenset[Memory | None]
    offloads: bool


@dataclass(frozen=True, slots=True)
class _Seen:
    """All of a snapshot that step times depend on.

    Attributes:
        fits: By type of model and of accelerator.
        nodes: By type of accelerator.
        memory: What accelerators tell of it, by type.
        most: Accelerators of all types.
    """

    fits: Mapping[str, StepTimeFit]
    nodes: Mapping[str, NodeSizes]
    memory: Mapping[str, frozenset[Memory | None]]
    most: int


class FittedTimes:
    """Gives the step times of a moment, and remembers what it predicted before."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        # Replaced as a whole: what-if questions are answered beside the loop.
        self._last: tuple[_Seen, FittedStepTimes] | None = None
        self.known = lru_cache(maxsize=1024)(_known)
        self.ways = lru_cache(maxsize=1024)(_ways)
        self.likely = lru_cache(maxsize=256)(_likely)
        self.beliefs = lru_cache(maxsize=256)(_beliefs)

    def __call__(self, snapshot: ClusterSnapshot) -> "FittedStepTimes":
        """The same object as long as neither fits nor nodes change."""
        seen = _Seen(
            dict(snapshot.fits),
            node_sizes(snapshot),
            {kind: told.every for kind, told in snapshot.memory.items()},
            accelerators_offered(snapshot),
        )
        last = self._last
        if last is not None and last[0] == seen:
            return last[1]
        times = FittedStepTimes(seen, self)
        self._last = (seen, times)
        return times


class FittedStepTimes:
    """Step times of one moment."""

    def __init__(self, seen: _Seen, remembers: FittedTimes) -> None:
        """Predicts by fits.

        Args:
            seen: What the cluster is like.
            remembers: What was predicted before.
        """
        self._fits = seen.fits
        self._nodes = seen.nodes
        self._memory = seen.memory
        self._most = seen.most
        self._remembers = remembers
        self._predictors: dict[tuple[str, str], _Known | None] = {}
        self._way = lru_cache(maxsize=4096)(self._predicted_way)

    def ways(self, spec: JobSpec, kind: str) -> tuple[Way, ...]:
        """What fits into nodes as they are, whoever is on them now; of a job that may run under any
        plan, of each layout the fastest that has room. See ``StepTimes``.
        """
        if kind not in self._nodes:
            return ()
        known = self._predictor(spec.model_type, kind)
        return self._remembers.ways(known, self._question(spec, kind))

    def _question(self, spec: JobSpec, kind: str) -> _Question:
        request = spec.accelerators
        plans = spec.plans or plans_to_choose(spec, self._most)
        return _Question(
            plans or tuple(plan for size in sizes(spec) for plan in plans_of(spec, size)),
            spec.any_plan,
            request.minimum,
            request.maximum,
            request.topology,
            spec.global_batch_size,
            spec.model,
            self._nodes[kind],
            self._memory.get(kind, _UNTOLD) if spec.model else _UNTOLD,
            kind != _WITHOUT_OWN_MEMORY,
        )

    def beliefs(
        self, spec: JobSpec, kind: str, held: tuple[ExecutionPlan, Shares]
    ) -> Beliefs | None:
        """What is believed of the ways that the job may have; see ``trials.BelievingTimes``."""
        known = self._predictor(spec.model_type, kind)
        if known is None or kind not in self._nodes:
            return None
        pairs = self._remembers.likely(known, self._question(spec, kind))
        return self._remembers.beliefs(known, pairs, held, spec.global_batch_size)

    def way(self, spec: JobSpec, kind: str, plan: ExecutionPlan, shares: Shares) -> Way | None:
        """What is predicted of one way; see ``StepTimes``."""
        return self._way(spec.model_type, spec.global_batch_size, kind, plan, shares)

    def source(self, spec: JobSpec, kind: str) -> str:
        """From what its steps are predicted; see ``SourcedStepTimes``."""
        name = spec.model_type.partition(" ")[0]
        if self._predictor(spec.model_type, kind) is None:
            return "Nothing is known of what its steps take."
        fit = self._fits.get(fit_key(spec.model_type, kind))
        if fit is not None and as_model(fit) is not None:
            rows = "1 plan" if fit.rows == 1 else f"{fit.rows} plans"
            return f"That is predicted from {rows} of {name} measured here."
        donor = donor_of(spec.model_type, kind, self._fits.values())
        if donor is not None and as_model(donor) is not None:
            taught = donor.model_type.partition(" ")[0]
            return (
                f"No plan of {name} was measured here yet: that is predicted from its sizes and "
                f"from what {taught} took here."
            )
        return (
            f"No plan of {name} was measured here yet: that is predicted from its sizes and the "
            f"name of the accelerator, {kind}, alone."
        )

    def _predicted_way(
        self, model_type: str, samples: int, kind: str, plan: ExecutionPlan, shares: Shares
    ) -> Way | None:
        known = self._predictor(model_type, kind)
        if plan.ranks != sum(shares) or not _lies_right(plan, shares):
            return None
        return _predicted(known, [(plan, shares)], samples)[0]

    def _predictor(self, model_type: str, kind: str) -> _Known | None:
        asked = (model_type, kind)
        if asked not in self._predictors:
            fit = self._fits.get(fit_key(model_type, kind))
            donor = donor_of(model_type, kind, self._fits.values())
            self._predictors[asked] = self._remembers.known(model_type, kind, fit, donor)
        return self._predictors[asked]


def node_sizes(snapshot: ClusterSnapshot) -> dict[str, NodeSizes]:
    """How large the nodes of each type are that are offered."""
    counts: dict[str, dict[int, int]] = {}
    for offer in snapshot.usable.values():
        for kind, every in offer.items():
            sizes = counts.setdefault(kind, {})
            sizes[len(every)] = sizes.get(len(every), 0) + 1
    found: dict[str, NodeSizes] = {}
    for kind, sizes in counts.items():
        nodes, as_large = [], 0
        for size in sorted(sizes, reverse=True):
            as_large += sizes[size]
            nodes.append((size, as_large))
        found[kind] = tuple(nodes)
    return found


def layouts(accelerators: int, nodes: NodeSizes, topology: Topology) -> tuple[Shares, ...]:
    """How so many accelerators may lie: on one node; on whole nodes, the last one in part if need
    be; and on halves of nodes.

    Args:
        accelerators: How many.
        nodes: What there is.
        topology: How far apart they may be.
    """
    found: dict[Shares, None] = {}
    if nodes and accelerators <= nodes[0][0]:
        found[(accelerators,)] = None
    for size, count in nodes[:_NODE_SIZES_LOOKED_AT] if topology is not Topology.SAME_NODE else ():
        halves = (size // 2,) if size % 2 == 0 else ()
        for share in (size, *halves):
            full, rest = divmod(accelerators, share)
            shares = (share,) * full + ((rest,) if rest else ())
            if full and 1 < len(shares) <= count and (share == size or not rest):
                found[shares] = None
    return tuple(found)


def split_in_two(accelerators: int, nodes: NodeSizes, topology: Topology) -> tuple[Shares, ...]:
    """How so many may lie on what is left of two nodes, in whatever parts: 3 and 1, or 5 and 4.

    Args:
        accelerators: How many.
        nodes: What there is.
        topology: How far apart they may be.
    """
    if not nodes or topology is not Topology.ANY:
        return ()
    found = []
    for more in range((accelerators + 1) // 2, min(accelerators - 1, nodes[0][0]) + 1):
        less = accelerators - more
        as_large = max((count for size, count in nodes if size >= less), default=0)
        if as_large > 1:
            found.append((more, less))
    return tuple(found)


def _known(
    model_type: str, kind: str, fit: StepTimeFit | None, donor: StepTimeFit | None
) -> _Known | None:
    named = type_named(model_type)
    if named is None:
        return None
    model = as_model(fit) if fit is not None else None
    if model is None:
        model = prior_of(named, kind, donor)
    threads = fit or donor
    return _Known(model, threads.cpu_threads if threads is not None else 1.0)


def _ways(known: _Known | None, asked: _Question) -> tuple[Way, ...]:
    pairs = _laid_out(asked, splits=known is not None)
    if not pairs:
        return ()
    if known is not None and asked.any_will_do:
        seconds = known.model.seconds(_configurations(known, pairs, asked.samples)).tolist()
        pairs = list(_first_with_room(pairs, seconds, asked, 1))
    else:
        pairs = [(plan, shares) for plan, shares in pairs if _has_room(plan, asked)]
    return tuple(_predicted(known, pairs, asked.samples))


def _likely(known: _Known, asked: _Question) -> tuple[_Pair, ...]:
    """Of a job that may run under any plan, those plans of each layout that may be the fastest, by
    the lower end of what is predicted, and have room; of any other, all that have room.
    """
    pairs = _laid_out(asked, splits=True)
    if not pairs or not asked.any_will_do:
        return tuple((plan, shares) for plan, shares in pairs if _has_room(plan, asked))
    lower = known.model.predict(_configurations(known, pairs, asked.samples)).lower.tolist()
    return tuple(_first_with_room(pairs, lower, asked, PLANS_OF_A_PLACE))


def _laid_out(asked: _Question, *, splits: bool) -> list[_Pair]:
    """The plans with how their accelerators may lie; ``splits`` for uneven parts of two nodes too,
    where it is known what these cost.
    """
    lie: dict[int, tuple[Shares, ...]] = {}
    parts: dict[int, tuple[Shares, ...]] = {}
    pairs: list[_Pair] = []
    for plan in asked.plans:
        size = plan.ranks
        if size not in lie:
            within = asked.minimum <= size <= asked.maximum
            even = layouts(size, asked.nodes, asked.topology) if within else ()
            two = split_in_two(size, asked.nodes, asked.topology) if within and splits else ()
            lie[size], parts[size] = even, tuple(each for each in two if each not in even)
        if (lie[size] or parts[size]) and (asked.offloads or not plan.offload):
            pairs += [(plan, shares) for shares in lie[size] if _lies_right(plan, shares)]
            if plan.data_parallel == size:
                # Nothing but the exchange of gradients crosses to the other node, and what an
                # uneven share costs there is among what is fitted.
                pairs += [(plan, shares) for shares in parts[size]]
    return pairs


def _first_with_room(
    pairs: Sequence[_Pair], seconds: Sequence[float], asked: _Question, most: int
) -> Iterator[_Pair]:
    """Of each layout so many plans at ``most`` for which there is room, those of the fewest seconds
    first: how long a step takes is found for thousands of plans at once, and how much memory one
    needs for one after the other.
    """
    thriftiest = _thriftiest(asked.plans)
    alike: dict[Shares, list[tuple[float, ExecutionPlan]]] = {}
    for (plan, shares), taken in zip(pairs, seconds, strict=True):
        alike.setdefault(shares, []).append((taken, plan))
    for shares, every in alike.items():
        every.sort(key=itemgetter(0))
        left = most
        for _, plan in every:
            # What has no room with the smallest micro-batches has none with larger ones.
            several = plan.accumulation_steps > 1
            if several and _is_too_large(thriftiest[_but_for_micro_batches(plan)], asked):
                continue
            if _has_room(plan, asked):
                yield plan, shares
                left -= 1
            if not left:
                break


_Layout = tuple[int, int, int, PipelineSchedule | None, int, bool]


def _but_for_micro_batches(plan: ExecutionPlan) -> _Layout:
    """What plans have in common that differ by micro-batches and checkpointing alone."""
    return (
        plan.data_parallel,
        plan.tensor_parallel,
        plan.pipeline_parallel,
        plan.schedule,
        plan.zero_stage,
        plan.offload,
    )


def _thriftiest(plans: Iterable[ExecutionPlan]) -> Mapping[_Layout, ExecutionPlan]:
    """Of those that have all but this in common: with the most micro-batches, and computing
    activations again if any does. Of several micro-batches smaller ones never need more memory, nor
    does checkpointing (``tests/unit/api/test_memory.py``).
    """
    found: dict[_Layout, tuple[int, bool, ExecutionPlan]] = {}
    for plan in plans:
        layout = _but_for_micro_batches(plan)
        steps, again, other = found.get(layout, (1, False, plan))
        steps = max(steps, plan.accumulation_steps)
        found[layout] = (steps, again or plan.activation_checkpointing, other)
    return {
        layout: replace(plan, accumulation_steps=steps, activation_checkpointing=again)
        for layout, (steps, again, plan) in found.items()
    }


def _beliefs(known: _Known, pairs: tuple[_Pair, ...], held: _Pair, samples: int) -> Beliefs:
    return Beliefs.of(known.model, pairs, held, samples, known.cpu_threads)


def _has_room(plan: ExecutionPlan, asked: _Question) -> bool:
    if not asked.model:
        return True
    need = estimated(asked.model, plan, asked.samples)
    return need is None or all(need.fits(there) for there in asked.memory)


def _is_too_large(plan: ExecutionPlan, asked: _Question) -> bool:
    """Whether accelerators have too little memory, whatever their hosts have."""
    need = estimated(asked.model, plan, asked.samples) if asked.model else None
    if need is None:
        return False
    return any(there and need.accelerator_bytes > there.accelerator_bytes for there in asked.memory)


def _lies_right(plan: ExecutionPlan, shares: Shares) -> bool:
    """Ranks that are tensor parallel are on one node."""
    group = plan.tensor_parallel
    return group == 1 or not any(share % group for share in set(shares))


def _configurations(known: _Known, pairs: Sequence[_Pair], samples: int) -> Configurations:
    return Configurations.of(
        [plan for plan, _ in pairs],
        [shares for _, shares in pairs],
        samples,
        cpu_threads=known.cpu_threads,
    )


def _predicted(known: _Known | None, pairs: Sequence[_Pair], samples: int) -> list[Way]:
    if known is None:
        return [Way(plan, shares, plan.ranks**-_GUESSED_EXPONENT, inf) for plan, shares in pairs]
    if not pairs:
        return []
    times = known.model.predict(_configurations(known, pairs, samples))
    return [
        Way(plan, shares, seconds, upper)
        for (plan, shares), seconds, upper in zip(
            pairs, times.seconds.tolist(), times.upper.tolist(), strict=True
        )
    ]
