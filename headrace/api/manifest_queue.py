"""``Queue``: whose accelerators are counted together, how many they may be, and who may use it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from headrace.api.manifest_cluster import ClusterMetadata, ReadyStatus
from headrace.api.manifest_fields import NO_NUL, Name
from headrace.api.manifest_part import Part, broken

_MOST = 2**31 - 1
Count = Annotated[int, Field(ge=0, le=_MOST)]
Identity = Annotated[str, Field(min_length=1, max_length=253, pattern=NO_NUL)]


class QueueSpec(Part):
    """What its jobs may hold together, and whose jobs it takes."""

    quota_accelerators: Annotated[int, Field(ge=0, le=_MOST)] | None = None
    """Accelerators that are its own: its jobs may hold so many at once; no limit if left out."""
    borrowing_accelerators: Annotated[int, Field(ge=-1, le=_MOST)] = 0
    """So many more may its jobs hold while no other queue's quota needs them; -1 for no limit."""
    submitters: Annotated[tuple[Identity, ...], Field(max_length=256, strict=False)] = ()
    """Identities that may submit to it over gRPC; empty for everyone who may submit."""
    namespaces: Annotated[tuple[Name, ...], Field(max_length=256, strict=False)] = ()
    """Namespaces whose jobs it takes; empty for all."""

    @model_validator(mode="after")
    def _each_once(self) -> "QueueSpec":
        for field, names in (("submitters", self.submitters), ("namespaces", self.namespaces)):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise broken(field, f"wanted every name once, got {twice} more than once")
        return self


class QueueStatus(ReadyStatus):
    """What was observed of the queue; written by Headrace, never by people."""

    held_accelerators: Count = 0
    """Accelerators that its jobs hold."""
    waiting_accelerators: Count = 0
    """The fewest accelerators that its waiting jobs could begin with, together."""
    jobs_running: Count = 0
    """Jobs that hold accelerators."""
    jobs_waiting: Count = 0
    """Jobs that wait for accelerators."""


class Queue(Part):
    """A tenant's queue."""

    api_version: Literal["headrace.dev/v1alpha1"]
    """headrace.dev/v1alpha1."""
    kind: Literal["Queue"]
    """Queue."""
    metadata: ClusterMetadata
    """The object's identity."""
    spec: QueueSpec
    """What its jobs may hold together, and whose jobs it takes."""
    status: QueueStatus | None = None
    """What was observed; written by Headrace, and not read when it is applied."""
