"""A small vision transformer for square one-channel images."""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn

from headrace.workloads.training.layers import Embedding, LayerNorm, Linear
from headrace.workloads.training.transformer import blocks


class Vit(nn.Module):
    """Classifies an image by the mean of its patches."""

    def __init__(
        self, *, layers: int, width: int, heads: int, side: int, patch_size: int, classes: int
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.patches = Linear(patch_size * patch_size, width)
        self.positions = Embedding((side // patch_size) ** 2, width)
        self.blocks = blocks(layers, width, heads, causal=False)
        self.norm = LayerNorm(width)
        self.head = Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        batch, side, _ = images.shape
        cells = side // self.patch_size
        cut = images.view(batch, cells, self.patch_size, cells, self.patch_size)
        flat = cut.transpose(2, 3).reshape(batch, cells * cells, self.patch_size**2)
        places = torch.arange(cells * cells, device=images.device)
        x = self.patches(flat) + self.positions(places)
        for block in self.blocks.values():
            x = block(x)
        logits: Tensor = self.head(self.norm(x).mean(dim=1))
        return logits

    def loss_sum(self, images: Tensor, labels: Tensor) -> Tensor:
        """Sum over samples of the loss."""
        return F.cross_entropy(self(images).float(), labels, reduction="sum")
