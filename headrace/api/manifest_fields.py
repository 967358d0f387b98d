"""The kinds of single values in a manifest: names, labels, quantities, each with its bounds."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from headrace.api.credentials import has_password
from headrace.api.plan import SHORT_FORM, ExecutionPlan

NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
_LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
_UID = r"^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?$"
_FOLDER_NAME = r"^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
NO_NUL = r"^[^\x00]*$"
_TIMESTAMP = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2})$"

_QUANTITY = r"^[0-9]+(\.[0-9]+)?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
_SUFFIXES = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
}
_ENDS = "beginning and ending with a letter or digit"
PATTERNS_IN_WORDS = {
    NAME: f"lower-case letters, digits and dashes, {_ENDS}",
    LABEL_KEY: f"letters, digits, -, _ and ., {_ENDS}, and perhaps a domain and / before them",
    _LABEL_VALUE: f"letters, digits, -, _ and ., {_ENDS}",
    _UID: f"letters, digits and dashes, {_ENDS}",
    _TIMESTAMP: "a time such as 2026-11-26T08:00:00Z",
    VARIABLE: "a variable's name: letters, digits and _, with no digit first",
    NO_NUL: "text without the character NUL",
}
"""What fields that are written by a rule may hold."""
_MOST_BYTES = 2**53
YEAR_SECONDS = 366 * 24 * 3600


def quantity_bytes(value: object) -> object:
    """Bytes of a quantity such as ``16Gi``; what is not one is left for the schema to refuse."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(_QUANTITY, value)
    if found is None:
        raise PydanticCustomError(
            "quantity", "wanted bytes as a number or a quantity such as 512Mi or 16Gi"
        )
    suffix = found[2] or ""
    number = value.removesuffix(suffix) if suffix else value
    whole, _, fraction = number.partition(".")
    scale = 10 ** len(fraction)
    # Rounded up, as Kubernetes does, and never through a float, which would lose bytes.
    return -(-int(whole + fraction) * _SUFFIXES[suffix] // scale)


def nearest_name(text: str) -> str:
    """The name that someone who wrote this may have meant; empty if it has nothing of one."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].rstrip("-")


def _in_the_open(text: str) -> str:
    """Refuses a password, and does not repeat it."""
    if has_password(text):
        raise PydanticCustomError(
            "password",
            "has a password in a URL, where everybody who may see the job could read it; leave it "
            "out of the URL and give it to the ranks as a variable of spec.env that takes its "
            "value from a secret (valueFrom.secretKeyRef)",
        )
    return text


def _a_plan(text: str) -> str:
    """Refuses what is no execution plan in canonical form."""
    try:
        ExecutionPlan.parse(text)
    except ValueError as error:
        raise PydanticCustomError("plan", "{sentence}", {"sentence": str(error)}) from error
    return text


Open = AfterValidator(_in_the_open)
"""Text that is stored and shown, so that no URL in it may hold a password."""
Name = Annotated[str, Field(min_length=1, max_length=63, pattern=NAME)]
LabelKey = Annotated[str, Field(min_length=1, max_length=317, pattern=LABEL_KEY)]
LabelValue = Annotated[str, Field(max_length=63, pattern=_LABEL_VALUE)]
Uid = Annotated[str, Field(min_length=1, max_length=64, pattern=_UID)]
FolderName = Annotated[str, Field(min_length=1, max_length=64, pattern=_FOLDER_NAME)]
Text = Annotated[str, Field(min_length=1, max_length=4096, pattern=NO_NUL), Open]
Path = Annotated[str, Field(min_length=1, max_length=1024, pattern=NO_NUL), Open]
Plan = Annotated[
    str,
    # The pattern is for who cannot call our validator, which says better what is wrong.
    Field(min_length=1, max_length=64, json_schema_extra={"pattern": SHORT_FORM}),
    AfterValidator(_a_plan),
]
Timestamp = Annotated[
    str, Field(max_length=40, pattern=_TIMESTAMP, json_schema_extra={"format": "date-time"})
]
Seconds = Annotated[int, Field(ge=0, le=YEAR_SECONDS)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Bytes = Annotated[
    int,
    Field(ge=0, le=_MOST_BYTES),
    BeforeValidator(quantity_bytes),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": _QUANTITY,
            "x-kubernetes-int-or-string": True,
        }
    ),
]
