"""The goodput model of Pollux and Sia (section 3 of either; equations as in the released code).

Goodput is throughput times statistical efficiency: how much a sample is worth in a larger batch.
Under a batch that never changes the efficiency is the same for every configuration of a job and
cancels where Sia divides by the job's least, so the policy here compares throughputs alone. This
model is what it would compare if the batch were free.
"""

from dataclasses import dataclass
from math import ceil

_SAMPLES = 50
"""So many batch sizes are tried."""


@dataclass(frozen=True, slots=True)
class SpeedModel:
    """What a step takes, in seconds.

    Attributes:
        alpha_compute: Of a micro-batch, whatever its size.
        beta_compute: Of each sample in it.
        alpha_nodes: Of a reduction over several nodes.
        beta_nodes: Of each replica beyond two in it.
        alpha_replicas: Of a reduction within a node.
        beta_replicas: Of each replica beyond two in it.
        gamma: How far computing and reducing overlap: 1 not at all.
    """

    alpha_compute: float
    beta_compute: float
    alpha_nodes: float
    beta_nodes: float
    alpha_replicas: float
    beta_replicas: float
    gamma: float

    def throughput(self, nodes: int, replicas: int, micro_batch: int, accumulation: int) -> float:
        """Samples a second.

        Args:
            nodes: Over which the replicas are spread.
            replicas: How many there are.
            micro_batch: Samples that each computes at once.
            accumulation: Micro-batches before the one that is followed by the reduction.
        """
        computing = self.alpha_compute + self.beta_compute * micro_batch
        alpha, beta = (
            (self.alpha_replicas, self.beta_replicas)
            if nodes == 1
            else (self.alpha_nodes, self.beta_nodes)
        )
        reducing = 0.0 if replicas == 1 else alpha + beta * max(replicas - 2, 0)
        last = float((computing**self.gamma + reducing**self.gamma) ** (1 / self.gamma))
        return replicas * micro_batch * (accumulation + 1) / (accumulation * computing + last)


@dataclass(frozen=True, slots=True)
class GradientNoise:
    """How much gradients differ from sample to sample, as measured in training.

    Attributes:
        initial_batch: Batch at which the efficiency is 1.
        squared_norm: Of the mean gradient.
        variance: Of gradients of the initial batch.
    """

    initial_batch: int
    squared_norm: float
    variance: float

    def efficiency(self, batch: int) -> float:
        """What a sample is worth in a batch, compared with the initial one."""
        scale = batch / self.initial_batch
        return (
            (self.variance + self.squared_norm)
            / (self.variance / scale + self.squared_norm)
            / scale
        )


def goodput(
    speed: SpeedModel,
    noise: GradientNoise,
    nodes: int,
    replicas: int,
    micro_batch: int,
    accumulation: int,
) -> float:
    """Useful samples a second."""
    batch = replicas * micro_batch * (accumulation + 1)
    throughput = speed.throughput(nodes, replicas, micro_batch, accumulation)
    return throughput * noise.efficiency(batch)


def best_goodput(
    speed: SpeedModel,
    noise: GradientNoise,
    nodes: int,
    replicas: int,
    *,
    micro_batches: tuple[int, int],
    batch_max: int,
) -> float:
    """The highest goodput over batch sizes; 0 if none can be run.

    Args:
        speed: What a step takes.
        noise: What a larger batch is worth.
        nodes: Over which the replicas are spread.
        replicas: How many there are.
        micro_batches: Least and most samples that a replica computes at once.
        batch_max: Largest batch.
    """
    least, most = micro_batches
    smallest = max(noise.initial_batch, least * replicas)
    if smallest > batch_max:
        return 0.0
    best = 0.0
    for i in range(_SAMPLES):
        batch = smallest * (batch_max / smallest) ** (i / (_SAMPLES - 1))
        accumulation = ceil(batch / (replicas * most)) - 1
        if replicas == 1 and batch > noise.initial_batch:
            accumulation = max(accumulation, 1)
        micro_batch = ceil(batch / (replicas * (accumulation + 1)))
        if least <= micro_batch <= most:
            found = goodput(speed, noise, nodes, replicas, micro_batch, accumulation)
            best = max(best, found)
    return best
