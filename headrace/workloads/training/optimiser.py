"""The constants of AdamW and the learning-rate schedule."""

import math
from dataclasses import dataclass

BETA1 = 0.9
BETA2 = 0.95
EPSILON = 1e-8
MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps of each parameter, by torch's names."""

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
