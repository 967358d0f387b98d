"""How much memory a plan needs, from first principles, for the rank that needs most.

Counted in bytes, P being the parameters that a rank computes with (its stages, its slice):

- *States*: fp32 weights and AdamW's two moments, 4P + 8P (Micikevicius et al., ICLR 2018, keep
  fp32 masters in the same way); over the replicas, ZeRO-1 divides the moments, ZeRO-2 and 3 all
  of it (Rajbhandari et al., SC 2020). Offload moves them to host memory. What saves write is
  copied there, by each replica its share; with offload nothing is copied.
- *Gradients*: fp32, 4P. DDP has them in its buckets all the time, others from the first backward
  pass on. FSDP2 reduces them block by block with each micro-batch; a pipeline adds them up whole.
- *Copies*: bf16 weights. Autocast keeps one of every matrix for the whole step; FSDP2 gathers two
  blocks ahead (ZeRO-3), or everything from the forward to the backward pass (the others).
- *Activations*: what autograd keeps of a block is counted tensor by tensor (`_kept_by_block`), as
  Korthikanti et al. (MLSys 2023) do: 16 numbers a position and hidden unit for GPT-2, of which
  tensor parallelism divides all but 4. Checkpointing keeps a block's input alone. A pipeline rank
  holds as many micro-batches as its schedule has on their way (`_in_flight`).
- *Temporaries*: the loss (logits in fp32, their softmax, two gradients), or the backward pass of
  one block, whichever is more.

No matrix of positions by positions is kept: torch's fused attention is used for bf16 and fp32.
Only llama with shared keys in fp32 goes through the plain computation, which keeps it.

Constants in capitals are what cannot be derived; they are fitted to measurements of real GPUs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

from headrace.api.models import Family, ModelShape
from headrace.api.plan import ExecutionPlan, PipelineSchedule

GIB = 2**30
FP32, BF16 = "fp32", "bf16"
PRECISIONS = (FP32, BF16)

_WEIGHT, _MOMENTS, _GRADIENT = 4, 8, 4
"""Bytes of a parameter's master weight, moments and gradient."""

# -- fitted -------------------------------------------------------------------------------------

CONTEXT_BYTES = round(1.5 * GIB)
"""CUDA context, kernels and the matrix library's workspace, as NVML counts them. Fitted, as the
next ones, to three models on 1 and 2 H100, no plan more than 5 % too low (docs/evidence)."""

CONVOLUTION_BYTES = round(0.35 * GIB)
"""What ViT has loaded besides: most likely cuDNN, with which its patches are embedded. Set by
vit-86m's rows, after the model without it had been asked about them (docs/evidence)."""

NCCL_BYTES = round(1.1 * GIB)
"""NCCL's kernels, and the buffers of the group of all ranks."""

NCCL_BYTES_PER_GROUP = 256 * 2**20
"""Buffers of one more process group that has been used."""

UNUSABLE_UNITS = 4
"""What torch's allocator holds and cannot give out again grows with the largest that comes and
goes, and not with what is in use: so many times a block's and the table's fp32 gradients."""

UNUSABLE_SHARDED_UNITS = 1.5
"""As many more where FSDP2 exchanges in streams of its own, each of which has its own memory."""

UNUSABLE_PER_LOSS_BYTE = 0.12
"""Likewise of the tensors at the loss, which no other moment has use for."""

LOSS_BYTES_PER_LOGIT = 12
"""At the loss's fullest moment: log-softmax, its gradient and the logits' gradient, all fp32."""

DIVIDED_LOSS_BYTES_PER_LOGIT = 16
"""The same where tensor parallelism divides logits: torch keeps the shifted logits too."""

KEPT_BYTES_PER_LOGIT = 4
"""Of these, what waits for the backward pass: the log-softmax."""

GATHERED_BLOCKS = 2
"""Blocks whose gathered weights ZeRO-3 holds: one at work, and the next."""

REDUCED_BLOCKS = 1
"""Blocks whose gradients are being reduced."""

SCORES_AT_WORK = 3
"""Positions-by-positions matrices of the plain attention's backward pass, beside the kept one."""

HOST_BYTES_PER_RANK = 4 * GIB
"""A rank's process: libraries, loaders, buffers."""

PINNED_PER_BYTE = 1.35
"""Pinned memory is given out in powers of two."""

# -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """Bytes of the fullest rank in its fullest moment.

    Attributes:
        states: Weights and moments.
        gradients: Gradients that outlive the backward pass of their block.
        copies: Weights in the precision of the computation.
        activations: What is kept for the backward pass.
        temporaries: What comes and goes at that moment.
        reserved: What the allocator holds beyond what is in use.
        context: CUDA's and NCCL's own.
        host_bytes: Host memory of the fullest rank.
    """

    states: int
    gradients: int
    copies: int
    activations: int
    temporaries: int
    reserved: int
    context: int
    host_bytes: int

    @property
    def accelerator_bytes(self) -> int:
        """Memory of the accelerator."""
        return sum(size for _, size in self.parts())

    def parts(self) -> Iterator[tuple[str, int]]:
        """What the accelerator's memory is made of."""
        for field in fields(self):
            if field.name != "host_bytes":
                yield field.name, getattr(self, field.name)

    def __str__(self) -> str:
        """The larger parts in GiB, largest first."""
        parts = sorted(self.parts(), key=lambda part: -part[1])
        told = (f"{name} {size / GIB:.1f}" for name, size in parts if size >= GIB / 20)
        return ", ".join(told)


def estimated_peak_bytes(
    shape: ModelShape,
    plan: ExecutionPlan,
    global_batch_size: int,
    *,
    sequence_length: int = 0,
    precision: str = FP32,
) -> PeakMemory:
    """What a step takes on the rank that needs most, once training is under way.

    Args:
        shape: The model.
        plan: A plan whose stages and slices divide it.
        global_batch_size: Samples of a step.
        sequence_length: Positions of a sample; 0 for the model's own.
        precision: Of the computation: ``fp32`` or ``bf16``. Weights and moments are fp32.

    Raises:
        ValueError: The precision is another one, or the plan does not divide the batch or layers.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: wanted {' or '.join(PRECISIONS)}, got {precision!r}")
    if global_batch_size % (plan.data_parallel * plan.accumulation_steps):
        raise ValueError(f"{plan} does not divide a batch of {global_batch_size}")
    if plan.stages > shape.layers:
        raise ValueError(f"{plan} has more stages than the {shape.layers} layers")
    step = _Step(
        shape,
        plan,
        samples=global_batch_size // (plan.data_parallel * plan.accumulation_steps),
        positions=sequence_length or shape.sequence_length,
        is_bf16=precision == BF16,
    )
    ranks = [_of_rank(step, rank) for rank in range(plan.pipeline_parallel)]
    return max(ranks, key=lambda found: (found.accelerator_bytes, found.host_bytes))


@dataclass(frozen=True, slots=True)
class _Step:
    """What is the same for all ranks.

    Attributes:
        samples: Of a micro-batch.
        positions: Of a sample.
    """

    shape: ModelShape
    plan: ExecutionPlan
    samples: int
    positions: int
    is_bf16: bool

    @property
    def is_fully_sharded(self) -> bool:
        """Whether FSDP2 runs the plan, as the trainer decides it."""
        plan = self.plan
        combined = plan.data_parallel > 1 and plan.ranks > plan.data_parallel
        return plan.zero_stage >= 2 or plan.offload or combined

    @property
    def casts(self) -> bool:
        """Whether autocast turns single tensors into bf16, with the residual stream in fp32."""
        return self.is_bf16 and not self.is_fully_sharded

    @property
    def shards(self) -> int:
        """Replicas among which weights and gradients are divided."""
        return self.plan.data_parallel if self.plan.zero_stage >= 2 else 1

    @property
    def number(self) -> int:
        """Bytes of a number inside a block."""
        return 2 if self.is_bf16 else 4

    @property
    def stream(self) -> int:
        """Bytes of a number of the residual stream."""
        return 2 if self.is_bf16 and self.is_fully_sharded else 4

    @property
    def tokens(self) -> int:
        """Positions of a micro-batch."""
        return self.samples * self.positions

    @property
    def logits(self) -> int:
        """Numbers that a micro-batch's loss looks at."""
        places = self.samples if self.shape.family is Family.VIT else self.tokens
        return places * self.shape.vocabulary


@dataclass(frozen=True, slots=True)
class _Holding:
    """What a pipeline rank holds, in numbers of parameters after tensor parallelism.

    Attributes:
        layers: Blocks of each of its stages.
        begins: Whether it has the first stage.
        ends: Whether it has the last one.
        block: Parameters of its largest block.
        blocks: Parameters of all its blocks.
        rest: Parameters outside of blocks.
        matrices: Parameters that autocast copies.
    """

    layers: tuple[int, ...]
    begins: bool
    ends: bool
    block: float
    blocks: float
    rest: float
    matrices: float

    @property
    def parameters(self) -> float:
        return self.blocks + self.rest


def _holding(step: _Step, rank: int) -> _Holding:
    plan, shape, counts = step.plan, step.shape, step.shape.counts
    stages, slices = plan.stages, plan.tensor_parallel
    if plan.schedule is PipelineSchedule.ZERO_BUBBLE:
        mine: tuple[int, ...] = (rank, stages - 1 - rank)  # V-shaped
    else:
        mine = tuple(range(rank, stages, plan.pipeline_parallel))
    layers = tuple(shape.layers * (i + 1) // stages - shape.layers * i // stages for i in mine)
    begins, ends = 0 in mine, stages - 1 in mine
    block = counts.block_split / slices + counts.block_whole
    blocks = sum(layers) * block + shape.decoder_layers * counts.decoder_block
    rest = 0.0
    if begins:
        rest += counts.embedding - counts.table + counts.table / slices
    if ends:
        own = 0 if counts.tied else counts.output
        rest += counts.head - own + own / slices
        if counts.tied and not begins:
            rest += counts.table / slices  # the copy of a tied table
    return _Holding(
        layers=layers,
        begins=begins,
        ends=ends,
        block=max(block, counts.decoder_block),
        blocks=blocks,
        rest=rest,
        matrices=blocks + (counts.output / slices if ends else 0),
    )


def _of_rank(step: _Step, rank: int) -> PeakMemory:
    held = _holding(step, rank)
    states, host = _states(step, held)
    kept = _kept(step, held, rank)
    before, after = _gradients(step, held)
    copies = _copies(step, held)
    work = _block_at_work(step, held)
    moments = (
        # A micro-batch's loss: all activations are there.
        (before, copies.at_loss, kept, _loss(step, held)),
        # Its backward pass begins.
        (before, copies.at_work, kept, work),
        # That of the last one ends: all gradients are there.
        (after, copies.at_end, 0.0, work + _reduction(step, held)),
        (_buckets_laid_anew(step, held), copies.at_loss, 0.0, 0.0),
    )
    gradients, cast, activations, temporaries = max(moments, key=sum)
    return PeakMemory(
        states=round(states),
        gradients=round(gradients),
        copies=round(cast),
        activations=round(activations),
        temporaries=round(temporaries),
        reserved=round(_unusable(step, held, kept)),
        context=_context(step),
        host_bytes=round(host),
    )


def _context(step: _Step) -> int:
    """What is there before a tensor is, and what libraries keep."""
    plan = step.plan
    sizes = (plan.data_parallel, plan.tensor_parallel, plan.pipeline_parallel)
    groups = sum(size > 1 for size in sizes)
    convolution = CONVOLUTION_BYTES if step.shape.family is Family.VIT else 0
    nccl = NCCL_BYTES + groups * NCCL_BYTES_PER_GROUP if groups else 0
    return CONTEXT_BYTES + convolution + nccl


def _states(step: _Step, held: _Holding) -> tuple[float, float]:
    """Weights and moments on the accelerator; all that is in host memory."""
    owned = held.parameters / step.shards
    if step.plan.offload:
        pinned = PINNED_PER_BYTE * (_WEIGHT + _GRADIENT)
        return 0.0, HOST_BYTES_PER_RANK + owned * (pinned + _MOMENTS)
    moments = _MOMENTS * owned
    if step.plan.zero_stage == 1:
        # Whole parameters are dealt out: nobody has less than the largest one.
        largest = max(step.shape.counts.table, step.shape.hidden * step.shape.intermediate)
        moments = _MOMENTS * max(held.parameters / step.plan.data_parallel, largest)
    copied = PINNED_PER_BYTE * (_WEIGHT + _MOMENTS) * held.parameters / step.plan.data_parallel
    return _WEIGHT * owned + moments, HOST_BYTES_PER_RANK + copied


def _gradients(step: _Step, held: _Holding) -> tuple[float, float]:
    """Gradients when a backward pass begins, and when the last one ends."""
    plan, whole = step.plan, _GRADIENT * held.parameters
    is_pipeline = plan.pipeline_parallel > 1
    if not step.is_fully_sharded:
        if plan.data_parallel > 1:
            return whole, whole  # DDP's buckets
        return (whole if _has_gone_backward(plan) else 0.0), whole
    sharded = 0.0 if plan.offload else whole / step.shards
    after = whole if is_pipeline else sharded
    return (after if _has_gone_backward(plan) else 0.0), after


def _buckets_laid_anew(step: _Step, held: _Holding) -> float:
    """Gradients while DDP lays its buckets anew, before the second step's last micro-batch: those
    of earlier ones are in the old buckets. Under ZeRO-1 it was not measured to be more.
    """
    plan = step.plan
    lays = plan.data_parallel > 1 and plan.zero_stage == 0 and plan.accumulation_steps > 1
    return 2 * _GRADIENT * held.parameters if lays and not step.is_fully_sharded else 0.0


def _has_gone_backward(plan: ExecutionPlan) -> bool:
    """Whether a step is at its fullest with gradients of an earlier micro-batch there."""
    return plan.accumulation_steps > 1


class _Copies(NamedTuple):
    """Bytes of weights to compute with, at three moments of a micro-batch."""

    at_loss: float
    at_work: float
    at_end: float


def _copies(step: _Step, held: _Holding) -> _Copies:
    plan = step.plan
    if not step.is_fully_sharded:
        cast = 2 * held.matrices if step.casts else 0.0
        # Computing a block again opens and closes autocast in the backward pass's thread, which
        # empties its store of copies.
        is_emptied = plan.activation_checkpointing and plan.pipeline_parallel == 1
        return _Copies(cast, cast, min(cast, 2 * held.block) if is_emptied else cast)
    everything = step.number * held.parameters
    if plan.pipeline_parallel > 1:
        # torch's stages do not let go between micro-batches
        return _Copies(everything, everything, everything)
    few = step.number * (min(GATHERED_BLOCKS * held.block, held.blocks) + held.rest)
    if plan.offload:
        few += _WEIGHT * held.block / step.shards  # on its way, before it is cast and gathered
    if plan.zero_stage == 3:
        return _Copies(step.number * held.rest, few, few)
    return _Copies(everything, everything, few)


def _unusable(step: _Step, held: _Holding, kept: float) -> float:
    """What the allocator holds beside all that is in use."""
    plan = step.plan
    # Tensor parallelism has the table's gradient whole for a moment.
    table = step.shape.counts.table if held.begins or held.ends else 0
    units = float(UNUSABLE_UNITS)
    exchanges = step.is_fully_sharded and plan.data_parallel > 1
    if exchanges:
        units += UNUSABLE_SHARDED_UNITS
    found = units * _GRADIENT * (held.block + table)
    found += UNUSABLE_PER_LOSS_BYTE * _loss(step, held)
    if plan.zero_stage == 3 and exchanges and not plan.offload:
        # Activations settle where a block's gathered weights were, so that the next block's need
        # another place.
        found += min(step.number * held.blocks, kept)
    return found


def _reduction(step: _Step, held: _Holding) -> float:
    """Gradients on their way from their precision through fp32 to the replica that owns them.

    What is outside of blocks comes last, all at once.
    """
    if not step.is_fully_sharded:
        return 0.0
    unit = max(held.rest, min(REDUCED_BLOCKS * held.block, held.blocks))
    return (step.number + _GRADIENT) * unit


def _loss(step: _Step, held: _Holding) -> float:
    if not held.ends:
        return 0.0
    slices = step.plan.tensor_parallel
    each = LOSS_BYTES_PER_LOGIT if slices == 1 else DIVIDED_LOSS_BYTES_PER_LOGIT
    return each * step.logits / slices


def _block_at_work(step: _Step, held: _Holding) -> float:
    """The backward pass of one block, or of the largest matrix if that is more."""
    shape, slices = step.shape, step.plan.tensor_parallel
    wide = (4 if shape.gated else 2) * shape.intermediate / slices * step.number
    narrow = 2 * shape.hidden * (step.stream + step.number)
    scores = SCORES_AT_WORK * _score_bytes(step) if _keeps_scores(step) else 0.0
    if shape.family is Family.T5:
        scores = _score_bytes(step)  # the gradient of distances
    found = step.tokens * (wide + narrow + scores)
    if step.plan.activation_checkpointing:
        found += _kept_by_block(step, is_decoder=shape.decoder_layers > 0)
    if step.casts:
        # A matrix's gradient is bf16 first.
        found += 2 * shape.hidden * shape.intermediate / slices
    return found


def _keeps_scores(step: _Step) -> bool:
    """Whether attention is computed plainly: no fused kernel shares keys in fp32."""
    return not step.is_bf16 and step.shape.shared_heads != step.shape.heads


def _score_bytes(step: _Step) -> float:
    """A position's row of scores, in all heads."""
    heads = step.shape.heads / step.plan.tensor_parallel
    return heads * step.positions * step.number


def _kept(step: _Step, held: _Holding, rank: int) -> float:
    """Everything that waits for the backward pass."""
    shape, plan = step.shape, step.plan
    stream = step.tokens * shape.hidden * step.stream
    kept = 0.0
    for layers, count in zip(held.layers, _in_flight(plan, rank), strict=True):
        each = stream if plan.activation_checkpointing else _kept_by_block(step, is_decoder=False)
        kept += count * layers * each
    if shape.decoder_layers:
        each = stream if plan.activation_checkpointing else _kept_by_block(step, is_decoder=True)
        kept += shape.decoder_layers * each
    if held.ends:
        last = _in_flight(plan, rank)[-1]
        kept += last * _kept_outside(step)
        # One micro-batch's is among the temporaries of the loss.
        kept += (last - 1) * KEPT_BYTES_PER_LOGIT * step.logits / plan.tensor_parallel
    # What goes from stage to stage, and back, has buffers for every micro-batch.
    if plan.pipeline_parallel > 1:
        sides = len(held.layers) * 2 - held.begins - held.ends
        kept += sides * plan.accumulation_steps * stream
    return kept


def _in_flight(plan: ExecutionPlan, rank: int) -> tuple[int, ...]:
    """Micro-batches on their way in each stage of a pipeline rank, at the fullest moment.

    GPipe has all of them; 1F1B one for each stage from here to the end (Narayanan et al., SC
    2021); the others as torch's schedules order them.
    """
    steps, length = plan.accumulation_steps, plan.pipeline_parallel
    behind = length - 1 - rank
    match plan.schedule:
        case None:
            return (1,)
        case PipelineSchedule.GPIPE:
            return (steps,)
        case PipelineSchedule.ONE_F_ONE_B:
            return (min(steps, behind + 1),)
        case PipelineSchedule.INTERLEAVED:
            later = min(length, 2 * behind + 1)
            return (min(2 * steps, 2 * behind + length + 1) - later, later)
        case PipelineSchedule.ZERO_BUBBLE:
            return (min(steps, length + behind), rank + 1)


def _kept_outside(step: _Step) -> float:
    """What is kept of a micro-batch in front of and behind the blocks, without the logits."""
    tensors = {Family.BERT: (2, 3), Family.ROBERTA: (2, 3), Family.T5: (2, 4)}
    wide, inside = tensors.get(step.shape.family, (1, 1))
    return step.tokens * step.shape.hidden * (wide * step.stream + inside * step.number)


def _kept_by_block(step: _Step, *, is_decoder: bool) -> float:
    """What autograd keeps of a block for a micro-batch, tensor by tensor.

    A normalisation keeps its input, in the precision of the residual stream. Its output is kept
    once for all matrices that read it; under autocast each of them has a copy of its own. Attention
    keeps queries, keys, values, its output and a number a head. The perceptron keeps what goes into
    and out of its activation function; with a gate, the gate's two sides and the product too.
    """
    shape, number = step.shape, step.number
    slices = step.plan.tensor_parallel
    attentions = 2 if is_decoder else 1
    norms = attentions + 1
    readers = 3 * attentions + (2 if shape.gated else 1)
    kept = float(norms * shape.hidden * step.stream)
    kept += shape.hidden * (2 * readers if step.casts else norms * number)
    width = shape.width_of_head * 2 * (shape.heads + shape.shared_heads)
    if shape.family is Family.LLAMA:
        # Turned queries lie head by head, so the output does, and is copied for the next matrix.
        width += shape.width_of_head * shape.heads
    kept += attentions * (width * number + 4 * shape.heads) / slices
    kept += _kept_by_perceptron(step) / slices
    if shape.family is Family.T5:
        # T5's normalisation is put together from parts: fp32 for the mean, then the scaled one.
        kept += norms * shape.hidden * (4 if step.casts or number == 4 else 4 + number)
    if _keeps_scores(step):
        kept += _score_bytes(step)
    return step.tokens * kept + attentions * _kept_of_positions(step)


def _kept_by_perceptron(step: _Step) -> float:
    """Bytes of a position."""
    shape, number = step.shape, step.number
    if shape.family is not Family.T5:
        return (4 if shape.gated else 2) * shape.intermediate * number
    if not shape.gated:
        return 2 * shape.intermediate * number
    # Its activation function is put together from parts too; autocast has some in fp32.
    return shape.intermediate * (22 if step.casts else 7 * number)


def _kept_of_positions(step: _Step) -> float:
    """What attention keeps of positions alone, the same for all samples."""
    shape, places = step.shape, step.positions
    if shape.family is Family.LLAMA:
        return 8.0 * places * shape.width_of_head  # sines and cosines, of queries and of keys
    if shape.family is Family.T5:
        return float(shape.heads * places * places * step.number)  # distances
    return 0.0
