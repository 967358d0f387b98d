"""A step on two samples, on the CPU, before ranks are connected and before a GPU is touched.

What an author can get wrong shows here, and is told in a sentence.
"""

import torch
from torch import Tensor, nn

from headrace.workloads.refusal import CANNOT_BE_TRAINED, WorkloadError
from headrace.workloads.training.batches import described
from headrace.workloads.training.own.data_set import OwnSamples
from headrace.workloads.training.own.model import OwnPart, Step
from headrace.workloads.training.own.position import ALONE, trying

_TOLERANCE = 1e-3
"""How far the loss of a sample may be from that in another batch, as a part of it."""


def tried(model: nn.Module, step: Step, samples: OwnSamples) -> None:
    """See that the step can train the model under every plan.

    Args:
        model: The whole model, with weights; its gradients are used up.
        step: What a step is.
        samples: The data.

    Raises:
        WorkloadError: It cannot.
    """
    indices = [0, 1][: samples.count]
    part = OwnPart(model, step)
    with torch.random.fork_rng(devices=[]), trying(ALONE):
        try:
            _learns(part, samples, indices)
            _counts_alone(part, samples, indices)
        except WorkloadError as error:
            raise WorkloadError(
                CANNOT_BE_TRAINED, f"{error.message}; tried on the CPU before training"
            ) from error


def _learns(part: OwnPart, samples: OwnSamples, indices: list[int]) -> None:
    """The step gives a loss for each sample, from which every parameter learns."""
    before = {name: buffer.clone() for name, buffer in part.model.named_buffers()}
    batch = samples.of(indices)
    losses = part(batch)
    if not isinstance(losses, Tensor) or losses.shape != (len(indices),):
        raise _refused(
            f"wanted the loss of each of {len(indices)} samples, a tensor of shape "
            f"[{len(indices)}] (with torch's losses, reduction='none'), got {described(losses)}"
        )
    if not losses.isfinite().all():
        raise _refused(f"wanted finite losses, got {losses.tolist()}")
    if not losses.requires_grad:
        raise _refused("wanted losses that depend on the model's parameters, got constant ones")
    losses.sum().backward()  # type: ignore[no-untyped-call]
    unused = [n for n, p in part.model.named_parameters() if p.requires_grad and p.grad is None]
    if unused:
        raise _refused(
            f"wanted losses that depend on every parameter, got none from {', '.join(unused[:5])}; "
            "use it, or say requires_grad_(False)"
        )
    part.zero_grad()
    moved = [n for n, b in part.model.named_buffers() if not torch.equal(b, before[n])]
    if moved:
        raise _refused(
            f"wanted buffers that stay as they are, got a step that changes {', '.join(moved[:5])}:"
            " no checkpoint has them, and replicas would differ"
        )


@torch.no_grad()
def _counts_alone(part: OwnPart, samples: OwnSamples, indices: list[int]) -> None:
    """A sample's loss is the same in every batch, so that a plan may divide batches as it likes."""
    part.eval()  # without dropout
    together = part(samples.of(indices))
    alone = torch.cat([part(samples.of([index])) for index in indices])
    part.train()
    if not torch.allclose(together, alone, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise _refused(
            f"wanted a loss of each sample that does not depend on the others of its batch, got "
            f"{together.tolist()} for two together and {alone.tolist()} for each alone"
        )


def _refused(message: str) -> WorkloadError:
    return WorkloadError(CANNOT_BE_TRAINED, f"step: {message}")
