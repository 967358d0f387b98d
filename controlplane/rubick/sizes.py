"""What the cost of a step depends on in a model: its sizes as plain numbers."""

from dataclasses import dataclass

from headrace.api.models import Family, ModelShape
from headrace.api.profile_rows import step_flops

_GPT2_KERNELS = 72.0
_KERNELS = {Family.LLAMA: 166.0, Family.T5: 186.0}
"""Operations of a block, forward and backward with autocast, views left out, as torch 2.11 counts
them in our trainer's models. BERT, RoBERTa and ViT have as many as GPT-2; RMS norms, rotary angles
and gates are made of many small ones."""

_BYTES = {"bf16": 2.0, "fp32": 4.0}


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """Sizes of one model, in the precision in which it computes.

    Attributes:
        parameters: Trained weights.
        layers: Blocks, of all stacks.
        hidden: Width of the residual stream.
        positions: Positions of a sample, where a configuration does not say.
        flops_per_position: Arithmetic of forward and backward pass that grows with the positions.
        flops_per_position_pair: What grows with their square (attention).
        head_fraction: Share of all arithmetic that is the output head's, which a pipeline's last
            stage computes on top of its blocks.
        relative_launches: Kernels that a block starts, over those of a GPT-2 block.
        bytes_per_number: Of an activation or of a gathered weight.
    """

    parameters: float
    layers: int
    hidden: int
    positions: int
    flops_per_position: float
    flops_per_position_pair: float
    head_fraction: float = 0.0
    relative_launches: float = 1.0
    bytes_per_number: float = 4.0

    def __post_init__(self) -> None:
        for name in ("parameters", "layers", "hidden", "positions", "flops_per_position"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: wanted more than 0, got {getattr(self, name)}")

    @classmethod
    def of_shape(
        cls, shape: ModelShape, *, sequence_length: int = 0, precision: str = "bf16"
    ) -> "ModelSizes":
        """Sizes of a shape that Headrace knows.

        Args:
            shape: The model.
            sequence_length: Positions of a sample; 0 for the model's own.
            precision: ``bf16`` or ``fp32``.

        Raises:
            ValueError: The precision is another one.
        """
        if precision not in _BYTES:
            raise ValueError(f"precision: wanted {' or '.join(_BYTES)}, got {precision!r}")
        # Two lengths tell the two coefficients apart.
        one, two = step_flops(shape, 1, 1), step_flops(shape, 1, 2)
        pair = (two - 2 * one) / 2
        positions = sequence_length or shape.sequence_length
        total = (one - pair) * positions + pair * positions**2
        return cls(
            parameters=shape.parameters,
            layers=shape.layers + shape.decoder_layers,
            hidden=shape.hidden,
            positions=positions,
            flops_per_position=one - pair,
            flops_per_position_pair=pair,
            head_fraction=6 * shape.counts.output * positions / total,
            relative_launches=_KERNELS.get(shape.family, _GPT2_KERNELS) / _GPT2_KERNELS,
            bytes_per_number=_BYTES[precision],
        )

    @classmethod
    def of_numbers(
        cls, parameters: float, layers: int, hidden: int, positions: int, *, precision: str = "fp32"
    ) -> "ModelSizes":
        """Sizes of a transformer of which no more is known."""
        return cls(
            parameters=parameters,
            layers=layers,
            hidden=hidden,
            positions=positions,
            flops_per_position=6 * parameters,
            flops_per_position_pair=12.0 * layers * hidden,
            bytes_per_number=_BYTES[precision],
        )
