"""A perceptron-mixer reads handwritten digits: training code of one's own, with headrace.train.

python digits.py                              one process
torchrun --nproc-per-node=2 digits.py         two
headrace apply -f digits.yaml                 as many as the cluster gives, under any plan
"""

import argparse

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel
from torch.utils.data import TensorDataset

from headrace import train

ROWS, COLUMNS, CLASSES = 8, 8, 10


class Mixer(nn.Module):
    """Mixes the rows of an image, then the columns, over and over."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.widen = nn.Linear(COLUMNS, width)
        self.layers = nn.ModuleList(MixerLayer(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, images):
        x = self.widen(images)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x).mean(dim=1))


class MixerLayer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.rows = nn.Sequential(nn.Linear(ROWS, 4 * ROWS), nn.GELU(), nn.Linear(4 * ROWS, ROWS))
        self.columns = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x):
        x = x + self.rows(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.columns(self.norm2(x))


def step(model, batch):
    """The loss of each sample."""
    images, labels = batch
    return F.cross_entropy(model(images), labels, reduction="none")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--steps", type=int, default=200, help="without Headrace")
    parser.add_argument("--plan", default="", help="without Headrace, such as dp2-z3 or tp2")
    parser.add_argument("--checkpoints", default="checkpoints/mixer", help="without Headrace")
    chosen = parser.parse_args()

    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    held_out = torch.arange(len(labels)) % 5 == 0

    trained = train.run(
        model=lambda: Mixer(chosen.width, chosen.depth),
        data=TensorDataset(images[~held_out], labels[~held_out]),
        step=step,
        tensor_parallel={
            "layers.*.*.0": ColwiseParallel(),  # of rows and of columns
            "layers.*.*.2": RowwiseParallel(),
        },
        settings=train.Settings(
            global_batch_size=64,
            steps=chosen.steps,
            learning_rate=5e-3,
            warmup_steps=20,
            plan=chosen.plan,
            checkpoints=chosen.checkpoints,
        ),
    )

    if trained.is_done and trained.rank == 0:
        model = trained.model().eval()
        right = model(images[held_out]).argmax(dim=1) == labels[held_out]
        print(f"{right.float().mean():.1%} of the held-out digits are read right")


if __name__ == "__main__":
    main()
