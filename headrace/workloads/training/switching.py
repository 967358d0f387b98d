"""Filling the state of a plan: from the seed, or from another plan, rank to rank in memory."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor

from headrace.api.plan import ExecutionPlan
from headrace.workloads.host_memory import give_back
from headrace.workloads.training.families.weights import StoredWeights
from headrace.workloads.training.holdings import Box, Move, moves
from headrace.workloads.training.planned import PlannedModel
from headrace.workloads.training.world import World

CHUNK_BYTES = 1 << 30
"""About so much moves at a time, and is held twice meanwhile."""


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Where the time of a switch in memory went, in seconds.

    The first three are only spent when the number of ranks changes.

    Attributes:
        settle: Committing the checkpoint that was being written.
        leave: Leaving the process group of before.
        join: Meeting in a new one.
        build: Laying out the new plan, without memory.
        parameters: Moving the weights.
        equip: Making optimizer, gradient buckets and pipeline.
        moments: Moving the optimizer's states.
    """

    build: float
    parameters: float
    equip: float
    moments: float
    settle: float = 0.0
    leave: float = 0.0
    join: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(self.told().values())

    def told(self) -> dict[str, float]:
        """What there was of it, by name, in the order in which it came."""
        spent: dict[str, float] = asdict(self)
        order = ("settle", "leave", "join", "build", "parameters", "equip", "moments")
        always = order[3:]
        return {name: spent[name] for name in order if spent[name] or name in always}


def fill_initial(model: PlannedModel, seed: int) -> None:
    """Begin at step 0 with the weights that the seed gives."""

    def drawn(name: str, box: Box) -> Tensor:
        whole = model.blueprint.initial(
            name, model.shapes[name], seed=seed, device=model.world.device
        )
        return whole[tuple(map(slice, box.low, box.high))]

    _fill(model, drawn)


def fill_from_weights(model: PlannedModel, stored: StoredWeights) -> None:
    """Begin at step 0 with the weights of a folder."""

    def read(name: str, box: Box) -> Tensor:
        return stored.read(name, tuple(map(slice, box.low, box.high)))

    _fill(model, read)


@torch.no_grad()
def _fill(model: PlannedModel, value: Callable[[str, Box], Tensor]) -> None:
    boxes = model.boxes()
    for name, piece in model.allocate().items():
        piece.copy_(value(name, boxes[name]))
    model.equip()
    model.begin_at(0)


def switched(old: PlannedModel, plan: ExecutionPlan) -> tuple[PlannedModel, Breakdown]:
    """The state of ``old`` under another plan of the same world. ``old`` is empty afterwards.

    All ranks of the world call it; a plan may use fewer of them.
    """
    began = time.monotonic()
    new = old.relaid(plan)
    return new, carried(old, new, time.monotonic() - began)


def resettled(
    old: PlannedModel,
    plan: ExecutionPlan,
    store: dist.Store,
    met: Callable[[World], None],
) -> tuple[PlannedModel, Breakdown]:
    """The state of ``old`` under a plan in a world made anew, with all ranks that either of them
    has. ``old`` is empty afterwards, and its world is left.

    Newcomers make their part of the world, do what ``met`` does, and call `carried` meanwhile.
    """
    clock = [time.monotonic()]
    before = old.world
    old.retire()
    before.part()
    clock.append(time.monotonic())
    size = max(before.size, plan.ranks)
    world = World(store, rank=before.rank, size=size, device=before.device)
    met(world)
    clock.append(time.monotonic())
    new = old.relaid(plan, world)
    took = carried(old, new, time.monotonic() - clock[-1])
    leave, join = (end - start for start, end in itertools.pairwise(clock))
    return new, replace(took, leave=leave, join=join)


@torch.no_grad()
def carried(old: PlannedModel | None, new: PlannedModel, build: float = 0.0) -> Breakdown:
    """Move the state of the old models of some ranks of a world to the new models of all.

    Args:
        old: What this rank held; None for a newcomer. It may be of another world, whose process
            group is gone. Empty afterwards.
        new: What it shall hold, still without memory.
        build: Seconds that making ``new`` took.
    """
    world = new.world
    clock = [time.monotonic()]
    if old is not None:
        old.retire()
    before = old.boxes() if old is not None else {}
    exchange = _Exchange(world, before, old.pieces() if old is not None else {})
    exchange.run(new.boxes(), new.allocate())
    clock.append(time.monotonic())
    moments = new.equip()
    clock.append(time.monotonic())
    wanted = {name: box for name, box in new.boxes().items() if name in moments}
    exchange.run(wanted, moments)
    steps = world.gathered(old.step if old is not None and old.is_member else None)
    new.begin_at(next(step for step in steps if step is not None))
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)
    if old is not None and old.plan.offload and not new.plan.offload:
        give_back()
    clock.append(time.monotonic())
    return Breakdown(build, *(end - start for start, end in itertools.pairwise(clock)))


class _Exchange:
    """Moves boxes from what the ranks held to what they shall hold."""

    def __init__(self, world: World, boxes: Mapping[str, Box], held: Mapping[str, Tensor]) -> None:
        self._world = world
        self._boxes = boxes
        self._held = held

    def run(self, boxes: Mapping[str, Box], slots: Mapping[str, Tensor]) -> None:
        """Fill the slots, tensor by tensor, freeing what has moved."""
        told = self._world.gathered((dict(self._boxes), dict(boxes)))
        before, after = [have for have, _ in told], [want for _, want in told]
        names = list(dict.fromkeys(itertools.chain.from_iterable(after)))
        for chunk in _chunks(names, after):
            mine = [
                move
                for move in moves(before, after, chunk)
                if self._world.rank in (move.source, move.destination)
            ]
            self._carry(mine, boxes, slots)
            for name in chunk:
                if name in self._held:
                    _free(self._held[name])

    def _carry(
        self, mine: Sequence[Move], boxes: Mapping[str, Box], slots: Mapping[str, Tensor]
    ) -> None:
        rank, device = self._world.rank, self._world.device
        waiting: list[dist.P2POp] = []
        arrivals: list[tuple[Tensor, Tensor]] = []
        for move in mine:
            if move.source == rank:
                sent = self._held[move.name][move.box.within(self._boxes[move.name])]
                if move.destination == rank:
                    slots[move.name][move.box.within(boxes[move.name])].copy_(sent)
                    continue
                # What lives in host memory travels by way of the GPU, as all the rest.
                ready = sent.to(device).contiguous()
                waiting.append(dist.P2POp(dist.isend, ready, move.destination))
            else:
                slot = slots[move.name][move.box.within(boxes[move.name])]
                arrived = torch.empty(slot.shape, dtype=slot.dtype, device=device)
                arrivals.append((slot, arrived))
                waiting.append(dist.P2POp(dist.irecv, arrived, move.source))
        if waiting:
            for work in dist.batch_isend_irecv(waiting):
                work.wait()
        for slot, arrived in arrivals:
            slot.copy_(arrived)


def _chunks(names: Sequence[str], after: Sequence[Mapping[str, Box]]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for name in names:
        chunk.append(name)
        size += 4 * max(held[name].elements for held in after if name in held)
        if size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _free(tensor: Tensor) -> None:
    """Give the memory back although others may still point to it."""
    storage = tensor.untyped_storage()
    if storage.resizable():  # pinned host memory is not
        storage.resize_(0)
