"""Common ground of the objects that belong to a cluster as a whole."""

from typing import Annotated, Literal

from pydantic import Field

from headrace.api.manifest_fields import Count, LabelKey, LabelValue, Name, Open, Timestamp, Uid
from headrace.api.manifest_part import Part


class ClusterMetadata(Part):
    """The identity of an object that is in no namespace."""

    name: Name
    """Name, unique in the cluster: lower case, digits and dashes, at most 63 characters."""
    uid: Uid | None = None
    """Minted once by the owner of the object."""
    generation: Annotated[int, Field(ge=1, le=2**53)] | None = None
    """Counts the changes of the spec from 1; minted by the owner."""
    creation_timestamp: Timestamp | None = None
    """When the object was first accepted; written by the owner."""
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=64)] = Field(
        default_factory=dict
    )
    """Labels, for people and selectors."""
    annotations: Annotated[
        dict[LabelKey, Annotated[str, Field(max_length=4096), Open]], Field(max_length=64)
    ] = Field(default_factory=dict)
    """Annotations, for people and tools."""


class ReadyCondition(Part):
    """One observed state, as Kubernetes writes it."""

    type: Annotated[str, Field(min_length=1, max_length=316, pattern=r"^[A-Z][A-Za-z]*$")]
    """Ready: whether the control plane has taken the object over."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[A-Z][A-Za-z0-9]*$")]
    """Why, as one word."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """Why, as a sentence: what was refused, or what whoever set it should know."""
    observed_generation: Count = 0
    """Generation of the spec that this was observed for."""
    last_transition_time: Timestamp | None = None
    """When the status of this condition last changed."""


class ReadyStatus(Part):
    """Of an object that the control plane takes over or refuses."""

    observed_generation: Count = 0
    """Generation of the spec that this status was observed for."""
    conditions: Annotated[tuple[ReadyCondition, ...], Field(max_length=16, strict=False)] = ()
    """Observed states, one of each type."""
