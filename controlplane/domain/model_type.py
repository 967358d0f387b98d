"""Under which name what is measured of a model's steps is known: the same for a job, for what it
tells in passing, and for a row of a profile.
"""

from functools import lru_cache
from typing import NamedTuple

from headrace.api.memory import PRECISIONS
from headrace.api.model_choice import shape_named
from headrace.api.models import ModelShape
from headrace.api.profile_rows import Asked


class ModelType(NamedTuple):
    """What the name of a built-in model's type says.

    Attributes:
        shape: Of the model.
        precision: ``fp32`` or ``bf16``.
        samples: Global batch.
        positions: Of a sample.
    """

    shape: ModelShape
    precision: str
    samples: int
    positions: int


def type_text(asked: Asked) -> str:
    """The type that a row is about: model, precision, global batch and positions of a sample.

    Steps of another batch are other steps; how many accelerators share it is the plan's business.
    """
    size = f"{asked.global_batch}x{asked.sequence_length}"
    return f"{asked.model} {asked.precision} batch {size}"


@lru_cache(maxsize=4096)
def type_named(text: str) -> ModelType | None:
    """What the name of a type says; None if it is not one of a built-in model of this release.

    Args:
        text: As `type_text` writes it.
    """
    try:
        name, precision, _, size = text.split(" ")
        samples, positions = map(int, size.split("x"))
        shape = shape_named(name, positions)
    except ValueError:
        return None
    if precision not in PRECISIONS or samples < 1 or positions < 1:
        return None
    return ModelType(shape, precision, samples, positions)
