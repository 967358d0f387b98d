"""What a job's status tells of what went wrong before, and what is done differently since."""

from typing import Annotated

from pydantic import Field

from headrace.api.manifest_fields import Count, Timestamp
from headrace.api.manifest_part import Part


class OutOfMemoryStatus(Part):
    """A plan that ran out of memory, and is not tried there again."""

    plan: Annotated[str, Field(max_length=64)]
    """The plan."""
    type: Annotated[str, Field(max_length=128)] = ""
    """Type of the accelerators; empty where it is not known."""


class SuspectedNodeStatus(Part):
    """A node where an attempt failed in a way that the node may have caused."""

    node: Annotated[str, Field(max_length=253)]
    """The node."""
    reason: Annotated[str, Field(max_length=64)]
    """How the attempt failed."""
    attempt: Count
    """Number of the attempt."""
    until: Timestamp
    """The job keeps off the node before this."""
