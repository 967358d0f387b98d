"""What a rank holds and computes under a plan: its part of the model and of the optimizer."""

import contextlib
import gc
from collections.abc import Iterator
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleZBVZeroBubble,
)
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from headrace.api.plan import ExecutionPlan, PipelineSchedule
from headrace.workloads.training.batches import Batch, micro_batches
from headrace.workloads.training.blueprint import Blueprint
from headrace.workloads.training.families.language import LanguagePart
from headrace.workloads.training.families.part import Part
from headrace.workloads.training.grid import AXES, place_of, stages_of
from headrace.workloads.training.holdings import Box, box_of, dealt
from headrace.workloads.training.optimiser import BETA1, BETA2, EPSILON, MOMENTS
from headrace.workloads.training.position import Position
from headrace.workloads.training.sharding import (
    cut_of,
    is_fully_sharded,
    local,
    local_gradient,
    loss_in_parts,
    materialise,
    named,
    settle,
    shard_fully,
    shards_of,
)
from headrace.workloads.training.staging import Staging
from headrace.workloads.training.stopwatch import FORWARD, GRADIENTS, OPTIMIZER, Stopwatch
from headrace.workloads.training.world import World, along

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

_BUFFERS_ARE_CONSTANTS: dict[str, Any] = {
    "forward_sync_buffers"
    if "forward_sync_buffers" in signature(DistributedDataParallel.__init__).parameters
    else "broadcast_buffers": False
}
"""What torch is told, under the name that the argument has in its release."""

_SCHEDULES = {
    PipelineSchedule.GPIPE: ScheduleGPipe,
    PipelineSchedule.ONE_F_ONE_B: Schedule1F1B,
    PipelineSchedule.INTERLEAVED: ScheduleInterleaved1F1B,
    PipelineSchedule.ZERO_BUBBLE: ScheduleZBVZeroBubble,
}


class PlannedModel:
    """This rank's part of model, gradients and optimizer.

    It comes to life in the order ``__init__`` (shapes only), ``allocate``, fill the parameters,
    ``equip``, fill the moments, ``begin_at``. `switching` and `tensors` do the filling.

    Attributes:
        blueprint: The model.
        plan: The plan.
        is_member: Whether the plan uses this rank; one that it does not holds nothing.
        parts: This rank's stages.
        shapes: Whole shapes of the parameters of which this rank holds some.
        step: Optimizer steps done.
        stopwatch: Measures the steps that it is asked to.
        staging: Where saves have its state while they write it.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        plan: ExecutionPlan,
        world: World,
        *,
        precision: str,
        global_batch_size: int,
        weight_decay: float,
    ) -> None:
        self.blueprint, self.plan, self.world = blueprint, plan, world
        self.step = 0
        self.stopwatch = Stopwatch(world.device)
        self.staging = Staging(world.device, copies=not plan.offload)
        self._precision = precision
        self._batch = global_batch_size
        self._decay = weight_decay
        self._mesh = world.mesh(plan)
        self._axes: dict[str, DeviceMesh | None] = {}
        self._tied_group = self._ends() if self._ties_stages else None
        self.is_member = world.rank < plan.ranks
        self._place = place_of(plan, world.rank)
        pipeline, layers = self._place.pipeline, blueprint.layers
        self.stages = stages_of(plan, layers, pipeline) if self.is_member else ()
        self.parts = self._shaped()
        self._lay_out()
        self._optimiser: torch.optim.Optimizer | None = None
        self._runs: list[nn.Module] = list(self.parts)
        self._pipeline: Any = None
        self._real: dict[str, nn.Parameter] = {}
        self._moments: dict[str, Tensor] = {}
        self._owned: set[str] = set()
        self._work: dict[str, nn.Parameter] = {}

    def _shaped(self) -> list[Part]:
        with torch.device("meta"):
            parts = [self.blueprint.part(stage.first, stage.last) for stage in self.stages]
        first, last = parts[:1], parts[1:]
        if self.blueprint.tied and self.plan.schedule is PipelineSchedule.ZERO_BUBBLE:
            # Whoever has the first and the last stage has the tied table once.
            for start, end in zip(first, last, strict=True):
                assert isinstance(start, LanguagePart)
                assert isinstance(end, LanguagePart)
                if end.tokens is not None:
                    end.tokens = start.tokens
        return parts

    @property
    def _ties_stages(self) -> bool:
        """Whether two ranks have a copy each of a tied table."""
        return (
            self.blueprint.tied
            and self.plan.pipeline_parallel > 1
            and self.plan.schedule is not PipelineSchedule.ZERO_BUBBLE
        )

    def _ends(self) -> "ProcessGroup | None":
        """The group of this rank's first and last stage; every rank of the world asks."""
        each = self.plan.data_parallel * self.plan.tensor_parallel
        own = None
        for rest in range(each):
            ranks = (rest, rest + each * (self.plan.pipeline_parallel - 1))
            group = self.world.group(ranks)
            own = group if self.world.rank in ranks else own
        return own

    def _lay_out(self) -> None:
        plan, mesh = self.plan, self._mesh
        for part in self.parts:
            part.recompute = plan.activation_checkpointing
            if mesh is not None and plan.tensor_parallel > 1:
                part.divide(along(mesh, "tensor"))
        whole = named(self.parts)
        self.shapes = {name: tuple(p.shape) for name, p in whole.items()}
        self._boxes = {name: self._box(parameter) for name, parameter in whole.items()}
        if mesh is not None and is_fully_sharded(plan):
            on_gpu = self.world.device.type == "cuda"
            for part in self.parts:
                shard_fully(part, mesh, plan, precision=self._precision, on_gpu=on_gpu)

    def _box(self, parameter: Tensor) -> Box:
        return box_of(
            parameter.shape,
            cut=cut_of(parameter),
            slices=self.plan.tensor_parallel,
            part=self._place.slice,
            shards=shards_of(self.plan),
            shard=self._place.replica,
        )

    # -- state ----------------------------------------------------------------------------

    @property
    def _state_device(self) -> torch.device:
        return torch.device("cpu") if self.plan.offload else self.world.device

    def allocate(self) -> dict[str, Tensor]:
        """Give the parameters memory; returns this rank's pieces, to be filled."""
        for part in self.parts:
            materialise(part, self._state_device, self.world.device)
        self._real = named(self.parts)
        return {name: local(p.detach()) for name, p in self._real.items()}

    def equip(self) -> dict[str, Tensor]:
        """With the parameters filled, make ready to run; returns empty moments, to be filled."""
        plan = self.plan
        if is_fully_sharded(plan):
            for part in self.parts:
                settle(part)
        elif plan.data_parallel > 1 and self.is_member:
            if plan.accumulation_steps > 1:
                # DDP takes those that are there into its buckets. Else the first step's would be
                # beside the buckets until its last micro-batch.
                for parameter in self.parts[0].parameters():
                    parameter.grad = torch.zeros_like(parameter)
            self._runs = [
                DistributedDataParallel(
                    self.parts[0],
                    process_group=self._group("data"),
                    init_sync=False,
                    gradient_as_bucket_view=True,
                    **_BUFFERS_ARE_CONSTANTS,
                )
            ]
        for run in self._runs:
            self.stopwatch.follow(run)
        self._real = named(self.parts)
        if self._real:
            self._tend()
        self._moments = {
            f"{name}|{moment}": torch.zeros_like(local(self._work[name].detach()))
            for name in sorted(self._owned)
            for moment in MOMENTS
        }
        return self._moments

    def _tend(self) -> None:
        """Make the optimizer: over the local pieces, so that every plan runs the same kernels."""
        if self.plan.zero_stage == 1:
            self._work = dict(self._real)
            shared = ZeroRedundancyOptimizer(
                self._decaying_groups(),
                optimizer_class=torch.optim.AdamW,
                process_group=self._group("data"),
                **self._adamw(),
            )
            self._optimiser, self._inner = shared, shared.optim
        else:
            self._work = {name: nn.Parameter(local(p.detach())) for name, p in self._real.items()}
            self._optimiser = torch.optim.AdamW(self._decaying_groups(), **self._adamw())
            self._inner = self._optimiser
        own = {id(p) for group in self._inner.param_groups for p in group["params"]}
        self._owned = {name for name, p in self._work.items() if id(p) in own}

    def _adamw(self) -> dict[str, Any]:
        return {"lr": 0.0, "betas": (BETA1, BETA2), "eps": EPSILON, "fused": True}

    def _decaying_groups(self) -> list[dict[str, Any]]:
        """Only matrices decay."""
        groups = []
        for decays in (True, False):
            chosen = [
                self._work[name]
                for name, shape in self.shapes.items()
                if (len(shape) >= 2) is decays
            ]
            if chosen:
                decay = self._decay if decays else 0.0
                groups.append({"params": chosen, "weight_decay": decay})
        return groups

    def begin_at(self, step: int) -> None:
        """With the moments filled, go on from this step."""
        self.step = step
        for name in self._owned:
            work = self._work[name]
            self._inner.state[work] = {
                "step": torch.tensor(float(step), device=work.device),
                **{moment: self._moments[f"{name}|{moment}"] for moment in MOMENTS},
            }
        if self.plan.pipeline_parallel > 1 and self.is_member:
            self._lay_pipeline()

    def boxes(self) -> dict[str, Box]:
        """What this rank holds of each parameter, and once equipped of each moment."""
        moments = {key: self._boxes[key.partition("|")[0]] for key in self._moments}
        return self._boxes | moments

    def saved(self) -> set[str]:
        """Of `boxes`, what this rank saves: replicas deal out what they have alike, so that each
        copies and writes a part of it.
        """
        if shards_of(self.plan) > 1:
            return set(self.boxes())
        sizes = {name: box.elements for name, box in self._boxes.items()}
        mine = dealt(sizes, self.plan.data_parallel)[self._place.replica]
        # ZeRO-1 has dealt out the moments itself.
        mine |= set(self._moments) if self.plan.zero_stage == 1 else set()
        return {key for key in self.boxes() if key in mine or key.partition("|")[0] in mine}

    def pieces(self) -> dict[str, Tensor]:
        """The tensors for `boxes`."""
        return {name: local(p.detach()) for name, p in self._real.items()} | self._moments

    def sum_of_state(self) -> Tensor:
        """A number that is finite only if all is that this rank holds."""
        sums = [piece.sum().to(self.world.device) for piece in self.pieces().values()]
        return torch.stack(sums).sum() if sums else torch.zeros((), device=self.world.device)

    def distributed(self) -> dict[str, Tensor]:
        """The parameters as torch's checkpoints want them: DTensors where they are divided."""
        return {name: real.detach() for name, real in self._real.items()}

    def distributed_moments(self) -> dict[str, Tensor]:
        """The moments, likewise, by the names of `boxes`."""
        return {
            key: _divided_as(self._real[key.partition("|")[0]], piece)
            for key, piece in self._moments.items()
        }

    def relaid(self, plan: ExecutionPlan, world: World | None = None) -> "PlannedModel":
        """The same training under another plan, still without memory.

        Args:
            plan: The plan.
            world: Another one than this model's, if it has been left.
        """
        return PlannedModel(
            self.blueprint,
            plan,
            world or self.world,
            precision=self._precision,
            global_batch_size=self._batch,
            weight_decay=self._decay,
        )

    def retire(self) -> None:
        """Keep the state and let go of everything that computes with it or saves it."""
        self.staging.close()
        if not self._runs:
            return
        self._drop_gradients()
        self._runs, self._pipeline, self._optimiser = [], None, None
        gc.collect()  # torch's wrappers hold on to their buffers in cycles

    # -- computing ------------------------------------------------------------------------

    def _group(self, axis: str) -> "ProcessGroup":
        assert self._mesh is not None
        return self._mesh.get_group(AXES.index(axis))

    def _lay_pipeline(self) -> None:
        plan = self.plan
        assert plan.schedule is not None
        stages = [
            PipelineStage(
                run, stage.index, plan.stages, self.world.device, group=self._group("pipeline")
            )
            for stage, run in zip(self.stages, self._runs, strict=True)
        ]
        self._pipeline = _SCHEDULES[plan.schedule](
            stages if plan.schedule.stages_per_rank > 1 else stages[0],
            plan.accumulation_steps,
            loss_fn=self._share_of_loss,
            scale_grads=False,
        )

    def _share_of_loss(self, outputs: Tensor, targets: Batch) -> Tensor:
        """A micro-batch's part of the mean loss, as large as averaging over replicas wants it."""
        with self.stopwatch.part(FORWARD):
            total = self.parts[-1].loss_sum(outputs, targets)
            return total * (self.plan.data_parallel / self._batch)

    def mine(self, batch: Tensor) -> Tensor:
        """This replica's part of a batch, or of the indices of its samples."""
        each = self._batch // self.plan.data_parallel
        return batch[self._place.replica * each : (self._place.replica + 1) * each]

    def gradients(self, inputs: Batch, targets: Batch) -> Tensor:
        """Forward and backward of this replica's samples; returns its share of the mean loss.

        Summed over all ranks, the shares are the mean loss of the global batch.
        """
        with self.stopwatch.part(GRADIENTS):
            return self._gradients(inputs, targets)

    def _gradients(self, inputs: Batch, targets: Batch) -> Tensor:
        for part in self.parts:
            part.begin_step(self._position())
        casts = self.parts[0].always_autocast or not is_fully_sharded(self.plan)
        mixed = self._precision == "bf16" and casts
        autocast = torch.autocast(self.world.device.type, torch.bfloat16, enabled=mixed)
        with autocast, loss_in_parts(self.plan):
            if self._pipeline is not None:
                loss = self._through_pipeline(inputs, targets)
            else:
                loss = self._accumulated(inputs, targets)
        self._tie()
        if self._place.slice != 0:
            return torch.zeros_like(loss)
        return loss / self.plan.data_parallel

    def _position(self) -> Position:
        place = self._place
        return Position(
            self.plan,
            self._along("data"),
            self._along("tensor"),
            self.world.rank,
            place.replica,
            place.slice,
            self.step + 1,
        )

    def _along(self, axis: str) -> "DeviceMesh | None":
        if axis not in self._axes:
            self._axes[axis] = None if self._mesh is None else along(self._mesh, axis)
        return self._axes[axis]

    def _accumulated(self, inputs: Batch, targets: Batch) -> Tensor:
        run, steps = self._runs[0], self.plan.accumulation_steps
        total = torch.zeros((), device=self.world.device)
        for index, (given, wanted) in enumerate(micro_batches((inputs, targets), steps)):
            with self._unsynchronised(run, last=index == steps - 1):
                loss = self._share_of_loss(run(given), wanted)
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    @contextlib.contextmanager
    def _unsynchronised(self, run: nn.Module, *, last: bool) -> Iterator[None]:
        """Replicas exchange gradients with the last micro-batch only; ZeRO-2 and 3 with each, or
        every rank would keep whole gradients between them.
        """
        if is_fully_sharded(self.plan):
            assert isinstance(run, FSDPModule)
            run.set_requires_gradient_sync(last or self.plan.zero_stage >= 2)
            yield
        elif isinstance(run, DistributedDataParallel) and not last:
            with run.no_sync():
                yield
        else:
            yield

    def _through_pipeline(self, inputs: Batch, targets: Batch) -> Tensor:
        given = (inputs,) if any(stage.index == 0 for stage in self.stages) else ()
        if not any(stage.index == self.plan.stages - 1 for stage in self.stages):
            self._pipeline.step(*given, return_outputs=False)
            return torch.zeros((), device=self.world.device)
        losses: list[Tensor] = []
        # Nobody reads the logits of a step, and they would be kept to its end.
        self._pipeline.step(*given, target=targets, losses=losses, return_outputs=False)
        return torch.stack([loss.detach() for loss in losses]).sum()

    def _tie(self) -> None:
        """A tied table in two stages gets the gradients of both."""
        if self._tied_group is None:
            return
        gradient = local_gradient(self._real["tokens.weight"])
        assert gradient is not None
        dist.all_reduce(gradient, group=self._tied_group)

    @torch.no_grad()
    def update(self, rate: float) -> None:
        """One step of AdamW with the gradients that lie there, which are spent afterwards."""
        assert self._optimiser is not None
        if self.plan.zero_stage != 1:
            for name, work in self._work.items():
                work.grad = local_gradient(self._real[name])
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        with self.stopwatch.part(OPTIMIZER):
            self._optimiser.step()
        self._clear_gradients()
        self.step += 1

    def _clear_gradients(self) -> None:
        """Make ready for the next step's gradients."""
        if self.plan.accumulation_steps > 1 and isinstance(self._runs[0], DistributedDataParallel):
            # They are views of its buckets. New ones would be added up beside the buckets first.
            assert self._optimiser is not None
            self._optimiser.zero_grad(set_to_none=False)
            # DDP lays its buckets anew in the second step: nothing else may hold on to the old.
            if self.plan.zero_stage != 1:
                for work in self._work.values():
                    work.grad = None
        else:
            self._drop_gradients()

    def _drop_gradients(self) -> None:
        for parameter in (*self._real.values(), *self._work.values()):
            parameter.grad = None

    @torch.no_grad()
    def outputs(self, inputs: Tensor) -> Tensor:
        """What the model says; not for pipelines."""
        found: Tensor = self._runs[0](inputs)
        return found


def _divided_as(parameter: nn.Parameter, piece: Tensor) -> Tensor:
    """A rank's piece of what is divided as the parameter is."""
    if not isinstance(parameter, DTensor):
        return piece
    return DTensor.from_local(
        piece,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
