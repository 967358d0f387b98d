"""``ClusterPolicy``: how a cluster decides, as one object.

Ranges, meanings and defaults are those of the control plane's own settings; a test compares them.
What is left out has the default, also if it was something else before.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from headrace.api.manifest_cluster import ClusterMetadata, ReadyStatus
from headrace.api.manifest_fields import Count
from headrace.api.manifest_part import Part, broken

ONLY_NAME = "default"
"""There is one policy in a cluster, so its object has one name."""


class RubickKnobs(Part):
    """The knobs of the policy rubick. They may be set while another policy decides."""

    patience_seconds: Annotated[float, Field(ge=1, le=1_000_000)] | None = None
    """What it is worth that a job runs now and not later, in seconds of its completion time: with
    little patience jobs wait for a good place, with much they take what there is. Default: 900."""
    patience_share: Annotated[float, Field(ge=0, le=100)] | None = None
    """The same as a share of the time that the job needs at best; what is larger counts. Long jobs
    rather run slowly than wait. Default: 0.3."""
    shortest_first: Annotated[float, Field(ge=0, le=1)] | None = None
    """How much short jobs come before long ones: with 1, what a job gains is weighed by the time
    that it still needs; with 0 not at all. Default: 1."""
    switch_seconds: Annotated[float, Field(ge=0, le=86_400)] | None = None
    """What a change of plan or place costs while none was observed. Default: 30."""
    cool_down_seconds: Annotated[float, Field(ge=0, le=86_400)] | None = None
    """So long after a start or change a job is left in peace. With less than a switch takes, jobs
    can displace each other for ever before they have trained. Default: 30.
    """
    changes_at_most: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """So many times at most a job is changed, as the artifact of the paper has it; 0 for no limit.
    Default: 0."""
    least_gain: Annotated[float, Field(ge=0, le=10)] | None = None
    """A running job is changed for its own good only if that saves this share of the time that it
    still needs. Default: 0.25."""
    starving_seconds: Annotated[float, Field(ge=0, le=1_000_000_000)] | None = None
    """A job that stood still for so long, at a stretch or in all beyond what it ran, is served
    before others, and is not displaced for as long again once it runs. After twice as long it takes
    what it needs from all that are promised nothing. Default: 21600."""
    starving_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """The share of the accelerators that starving jobs may hold together. Default: 0.5."""
    displaced_at_most: Annotated[int, Field(ge=0, le=1_000)] | None = None
    """So many jobs at most are displaced for one. Default: 8."""
    attempts: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """So many times at most a round tries to displace others: its budget, counted in work and not
    in time, so that the round stays a pure function. Default: 400."""
    search_nodes: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """So many nodes of a search tree at most are looked at to improve what was dealt; 0 for no
    search. Default: 0."""
    search_beside_nodes: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """So many nodes of a search tree at most are looked at beside the loop, while rounds go on;
    what is found is proposed to a later round. 0 for no such search, and then no proposal is looked
    at. Default: 1000."""
    search_beside_gain: Annotated[float, Field(ge=0, le=1)] | None = None
    """A search beside the loop is begun only if the last round may be this share too low, and
    proposed only if it gains this share: less is lost in the errors of predictions. Default:
    0.01."""
    try_plans_at_most: Annotated[int, Field(ge=0, le=16)] | None = None
    """So many times at most a running job tries another plan, or more of its node's free
    accelerators, for some steps, to learn what its type of model takes; 0 for never. Default: 4."""
    try_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """The share of the time that a job still needs that it may lose by trying one plan, at the
    upper end of what is predicted. Default: 0.02."""
    try_least_worth: Annotated[float, Field(ge=0, le=1_000)] | None = None
    """A plan is tried only if what is learnt is worth so many times its price. Default: 2."""


class ClusterPolicySpec(Part):
    """Which policy decides, and what is set of it."""

    policy: Literal["equal-share", "fifo", "rubick"] = "rubick"
    """Which policy decides."""
    period_seconds: Annotated[float, Field(ge=0.05, le=3_600)] | None = None
    """Longest time between two decisions; what happens wakes the loop earlier. Default: 5."""
    node_grace_seconds: Annotated[float, Field(ge=1, le=3_600)] | None = None
    """Silence after which a node counts as lost. Default: 15."""
    recovery_grace_seconds: Annotated[float, Field(ge=0, le=3_600)] | None = None
    """After a start of the control plane, how long it waits for known nodes to speak. Default:
    20."""
    stop_grace_seconds: Annotated[float, Field(ge=1, le=86_400)] | None = None
    """How long a planned stop may take before the attempt is ended. Default: 120."""
    start_grace_seconds: Annotated[float, Field(ge=0, le=86_400)] | None = None
    """How long an attempt may take to report its first step before it counts as failed; 0 for no
    limit. Default: 600."""
    answer_seconds: Annotated[float, Field(ge=1, le=86_400)] | None = None
    """How long ranks may take to tell of a change of plan before it is made by a restart; slow
    steps and those that are to join make it longer. Default: 120."""
    finished_jobs_kept: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Most finished jobs that are remembered; the one that finished first goes first. Default:
    5000."""
    finished_kept_seconds: Annotated[float, Field(ge=0, le=316_224_000)] | None = None
    """How long a finished job is remembered whose manifest does not say; 0 for no limit but the
    number. Default: 7776000."""
    rubick: RubickKnobs = RubickKnobs()
    """The knobs of the policy rubick."""

    def settings(self) -> dict[str, str | float]:
        """Every setting by the control plane's name for it; "default" for what is left out."""
        own = self.model_dump(by_alias=False, exclude={"rubick"})
        knobs = {
            f"rubick.{name}": value
            for name, value in self.rubick.model_dump(by_alias=False).items()
        }
        return {
            name: "default" if value is None else value for name, value in (own | knobs).items()
        }


class ClusterPolicyStatus(ReadyStatus):
    """What was observed of the policy; written by Headrace, never by people."""

    version: Count = 0
    """Version of the settings that are in force; `headrace policy history` tells of each."""


class ClusterPolicy(Part):
    """How a cluster decides."""

    api_version: Literal["headrace.dev/v1alpha1"]
    """headrace.dev/v1alpha1."""
    kind: Literal["ClusterPolicy"]
    """ClusterPolicy."""
    metadata: ClusterMetadata
    """The object's identity; it is called default."""
    spec: ClusterPolicySpec
    """Which policy decides, and what is set of it."""
    status: ClusterPolicyStatus | None = None
    """What was observed; written by Headrace, and not read when it is applied."""

    @model_validator(mode="after")
    def _only_one(self) -> "ClusterPolicy":
        if self.metadata.name != ONLY_NAME:
            raise broken(
                "metadata.name",
                f"a cluster has one policy, which is called {ONLY_NAME}, got {self.metadata.name}",
            )
        return self
