"""Common ground of all parts of the manifest's schema."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError


def broken(at: str, sentence: str) -> PydanticCustomError:
    """A rule across fields is broken; ``at`` is the field, below the model, to point to."""
    return PydanticCustomError("rule", "{sentence}", {"sentence": sentence, "at": at})


class Part(BaseModel):
    """Common ground of all parts: camelCase, closed, frozen, no silent conversions."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        strict=True,
        validate_by_alias=True,
        validate_by_name=False,
        serialize_by_alias=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
