"""AdamW over one flat buffer, and the learning-rate schedule.

Weights and both moments are rows of one tensor, and all gradients are one tensor: an update is a
few operations whatever the number of layers, ranks exchange gradients in one call, and a new rank
is given the whole state in one broadcast. torch.optim computes the same, but constructing it loads
torch's compiler, which takes longer than the rest of a rank's start.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

BETA1 = 0.9
BETA2 = 0.95
EPSILON = 1e-8
FLOOR = 0.1
"""The schedule ends at this part of its highest learning rate."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Linear warm-up, then a cosine down to a tenth. Steps count from 1."""

    highest: float
    warmup_steps: int
    steps: int

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        if step <= self.warmup_steps:
            return self.highest * step / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.highest * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


@dataclass(frozen=True, slots=True)
class Piece:
    """Where a parameter lies in the flat buffer."""

    name: str
    shape: torch.Size
    start: int
    end: int


class FlatModel:
    """A model whose parameters are views into one buffer, with their moments and gradients.

    Attributes:
        state: Rows of weights, first and second moments; fp32.
        gradients: All gradients, then ``extra`` numbers that ranks add up along with them.
        step: Optimizer steps done.
    """

    def __init__(self, model: nn.Module, *, extra: int) -> None:
        self.model = model
        # Matrices first: only they decay, so the decay is one operation on the front part.
        named = sorted(model.named_parameters(), key=lambda item: item[1].ndim < 2)
        self.pieces = tuple(_laid_out(named))
        self.size = self.pieces[-1].end
        self._decayed = sum(p.numel() for _, p in named if p.ndim >= 2)
        self.step = 0
        self.state = torch.zeros(3, self.size, dtype=torch.float32)
        self.gradients = torch.zeros(self.size + extra, dtype=torch.float32)
        for piece, (_, parameter) in zip(self.pieces, named, strict=True):
            if parameter.device.type != "meta":
                self.view(0, piece).copy_(parameter.detach())
        self._attach()

    def move(self, device: torch.device) -> None:
        """Take the state to a device; only called once all ranks have agreed to start."""
        self.state = self.state.to(device)
        self.gradients = torch.zeros_like(self.gradients, device=device)
        self._attach()

    def view(self, row: int, piece: Piece) -> Tensor:
        """A parameter's part of a row of the state."""
        return self.state[row, piece.start : piece.end].view(piece.shape)

    def _attach(self) -> None:
        """Make the module's parameters views of the buffers."""
        for piece in self.pieces:
            owner_name, _, name = piece.name.rpartition(".")
            parameter = nn.Parameter(self.view(0, piece))
            # Backward adds into an existing gradient, which is what accumulation needs.
            parameter.grad = self.gradients[piece.start : piece.end].view(piece.shape)
            setattr(self.model.get_submodule(owner_name), name, parameter)

    @property
    def device(self) -> torch.device:
        """Where the state is."""
        return self.state.device

    @property
    def tail(self) -> Tensor:
        """The extra numbers behind the gradients."""
        return self.gradients[self.size :]

    @torch.no_grad()
    def update(self, rate: float, weight_decay: float) -> None:
        """One step of AdamW with the gradients that lie there."""
        self.step += 1
        weights, first, second = self.state
        gradient = self.gradients[: self.size]
        weights[: self._decayed].mul_(1 - rate * weight_decay)
        first.lerp_(gradient, 1 - BETA1)
        second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        spread = (second / (1 - BETA2**self.step)).sqrt_().add_(EPSILON)
        weights.addcdiv_(first, spread, value=-rate / (1 - BETA1**self.step))

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that training goes on from, as views, under torch's flattened names.

        They are the names of ``StateDictOptions(flatten_optimizer_state_dict=True)``, which know
        parameters by name and not by position, so that other plans can load them.
        """
        found: dict[str, Tensor] = {}
        count = torch.tensor(float(self.step))
        for piece in self.pieces:
            found[f"model.{piece.name}"] = self.view(0, piece)
            found[f"optimizer.state.{piece.name}.exp_avg"] = self.view(1, piece)
            found[f"optimizer.state.{piece.name}.exp_avg_sq"] = self.view(2, piece)
            found[f"optimizer.state.{piece.name}.step"] = count
        return found


def _laid_out(named: list[tuple[str, nn.Parameter]]) -> Iterator[Piece]:
    start = 0
    for name, parameter in named:
        yield Piece(name, parameter.shape, start, start + parameter.numel())
        start += parameter.numel()
