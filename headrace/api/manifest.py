"""``TrainingJob``: the one schema of a training job's manifest.

The CLI parses files with it, the control plane parses submissions with it, and CRDs are generated
from it, so it is written the way Kubernetes writes things: camelCase, conditions instead of a
phase, durations as integer ``...Seconds``, quantities as a number or a string such as ``16Gi``.
Everything is bounded and described, because a CRD needs both. Unknown fields are refused.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from headrace.api.counted import counted
from headrace.api.feasible_plans import infeasible_own_code
from headrace.api.manifest_fields import (
    NO_NUL,
    VARIABLE,
    YEAR_SECONDS,
    Bytes,
    FolderName,
    LabelKey,
    LabelValue,
    Name,
    Open,
    Path,
    Plan,
    Seconds,
    Text,
    Timestamp,
    Uid,
)
from headrace.api.manifest_model import Data, Model, breaches_of_data
from headrace.api.manifest_part import Part, broken
from headrace.api.manifest_plans import Unfit, breaches_of_plans, fitting
from headrace.api.manifest_status import Status
from headrace.api.refusal import Problem, problems_in
from headrace.api.variables import setter_of

API_VERSION = "headrace.dev/v1alpha1"
MANAGED_BY_HEADRACE = "headrace.dev/control-plane"


class Metadata(Part):
    """The object's identity. The owner of the object mints uid and generation."""

    name: Name
    """Name, unique in its namespace: lower case, digits and dashes, at most 63 characters."""
    namespace: Name = "default"
    """Where the name is unique."""
    uid: Uid | None = None
    """Minted once by the owner of the object; the same name after a delete is a new uid."""
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


class Toleration(Part):
    """Accepts a node's taint."""

    key: LabelKey
    """Key of the taint."""
    value: LabelValue = ""
    """Value of the taint; empty accepts any value of the key."""


class Accelerators(Part):
    """The accelerators that the job can use."""

    minimum: Annotated[int, Field(ge=1, le=65536)] = 1
    """Fewest accelerators that the job starts with."""
    maximum: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Most accelerators that the job can use; equal to the minimum (a rigid job) if left out."""
    type: LabelValue = ""
    """Accelerator model, for example nvidia-h100-80gb-hbm3 or cpu; empty accepts any one model."""
    selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=64)] = Field(
        default_factory=dict
    )
    """Node labels that must match."""
    topology: Literal["Any", "SameRack", "SameNode"] = "Any"
    """How far apart the ranks may be; a job waits rather than break it. Few is always preferred."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=64, strict=False)] = ()
    """Taints that do not keep the job off a node."""
    cpu_cores_each: Annotated[int, Field(ge=0, le=4096)] = 0
    """CPU cores that each accelerator must bring."""
    host_memory_bytes_each: Bytes = 0
    """Host memory that each accelerator must bring, such as 16Gi; told, not enforced."""

    @property
    def most(self) -> int:
        """The maximum, filled in for a rigid job."""
        return self.minimum if self.maximum is None else self.maximum

    @model_validator(mode="after")
    def _ordered(self) -> "Accelerators":
        if self.most < self.minimum:
            raise broken(
                "maximum",
                f"wanted at least the minimum of {counted(self.minimum, 'accelerator')}, got "
                f"{self.maximum}",
            )
        return self


class Command(Part):
    """A program of the user's own, for example torchrun. It runs rigidly: one size, no changes."""

    program: Annotated[tuple[Text, ...], Field(min_length=1, max_length=256, strict=False)]
    """Entry point and arguments, started once on every node of the job, without a shell."""
    working_directory: Path | None = None
    """Directory on the node in which it starts; must be there on every node."""
    image: Annotated[str, Field(min_length=1, max_length=512, pattern=NO_NUL), Open] | None = None
    """Container image, where the runtime starts containers."""


class Script(Part):
    """A Python script of the user's own that trains through headrace.train: elastic, under every
    plan that does not split its model.
    """

    file: Path
    """The script; started by every rank, so it must be there on every node."""
    arguments: Annotated[tuple[Text, ...], Field(max_length=256, strict=False)] = ()
    """Its arguments."""
    working_directory: Path | None = None
    """Directory on the node in which it runs, and from which a relative file is meant."""

    @model_validator(mode="after")
    def _findable(self) -> "Script":
        if self.working_directory is None and not self.file.startswith("/"):
            raise broken(
                "file", f"wanted an absolute path, or a workingDirectory beside it, got {self.file}"
            )
        return self


class SecretKeyReference(Part):
    """Points to one entry of a secret. Only the reference is ever stored or shown."""

    name: Name
    """Name of the secret."""
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
    """Entry of the secret."""


class ValueSource(Part):
    """Where the value of a variable comes from."""

    secret_key_ref: SecretKeyReference
    """An entry of a secret."""


class EnvironmentVariable(Part):
    """One environment variable of every rank."""

    name: Annotated[str, Field(min_length=1, max_length=256, pattern=VARIABLE)]
    """Name of the variable; those that Headrace or torchrun sets itself are not allowed."""
    value: Annotated[str, Field(max_length=32768, pattern=NO_NUL), Open] | None = None
    """Its value, in the open. For anything secret use valueFrom."""
    value_from: ValueSource | None = None
    """Takes the value from elsewhere at start."""

    @model_validator(mode="after")
    def _one_value(self) -> "EnvironmentVariable":
        if (self.value is None) == (self.value_from is None):
            raise broken("value", "wanted exactly one of value and valueFrom")
        owner = setter_of(self.name)
        if owner is not None:
            raise broken("name", f"{self.name} is set by {owner} for every rank; use another name")
        return self


class PersistentVolumeClaim(Part):
    """A claim of Kubernetes."""

    claim_name: Annotated[str, Field(min_length=1, max_length=253, pattern=NO_NUL)]
    """Name of the claim, in the job's namespace."""
    read_only: bool = False
    """Whether it is mounted for reading only."""


class HostPath(Part):
    """A directory of the node."""

    path: Path
    """Absolute path on the node."""


class Volume(Part):
    """Something mounted for every rank."""

    name: Name
    """Name of the volume, unique in the job."""
    mount_path: Path
    """Where ranks see it."""
    persistent_volume_claim: PersistentVolumeClaim | None = None
    """A claim of Kubernetes."""
    host_path: HostPath | None = None
    """A directory of the node."""

    @model_validator(mode="after")
    def _one_source(self) -> "Volume":
        if (self.persistent_volume_claim is None) == (self.host_path is None):
            raise broken("hostPath", "wanted exactly one of hostPath and persistentVolumeClaim")
        return self


class Training(Part):
    """What is trained. No execution plan changes any of it."""

    global_batch_size: Annotated[int, Field(ge=1, le=2**24)]
    """Samples of one optimizer step, over all ranks together."""
    micro_batch_size_max: Annotated[int, Field(ge=1, le=2**24)] | None = None
    """Most samples that one rank holds at once; no limit if left out."""
    steps: Annotated[int, Field(ge=1, le=10**9)]
    """Optimizer steps until the job is done, those of a job that it starts from included."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of the computation; weights and optimizer states are always fp32."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 3e-4
    """Highest learning rate of the schedule (linear warm-up, then cosine to a tenth)."""
    warmup_steps: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Steps in which the learning rate rises to its highest."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    """AdamW's weight decay."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Fixes the initialisation and the order of the data."""

    @model_validator(mode="after")
    def _warm_up_ends(self) -> "Training":
        if self.warmup_steps > self.steps:
            raise broken(
                "warmupSteps", f"wanted at most {self.steps} (steps), got {self.warmup_steps}"
            )
        return self


class StartFrom(Part):
    """A checkpoint of another job to begin with."""

    uid: FolderName
    """Uid of the job whose checkpoint it is, or folder of a script that ran without Headrace."""
    step: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """Step of the checkpoint; the newest if left out."""
    store: Path | None = None
    """Where that job kept its checkpoints; this job's store if left out."""


class Checkpoint(Part):
    """Where and when the job's state is saved."""

    store: Path
    """Path or fsspec URL, without a password, that every node of the job sees."""
    every_steps: Annotated[int, Field(ge=1, le=10**9)] = 50
    """Steps between two checkpoints."""
    every_seconds: Annotated[int, Field(ge=1, le=YEAR_SECONDS)] | None = None
    """Longest time between two checkpoints, whatever the number of steps."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 3
    """Newest checkpoints that are kept."""
    start_from: StartFrom | None = None
    """Another job's checkpoint to begin with."""


class Retries(Part):
    """How failed attempts are forgiven."""

    max: Annotated[int, Field(ge=0, le=1000)] = 3
    """Failed attempts after the first that are forgiven."""
    backoff_seconds: Annotated[int, Field(ge=0, le=86400)] = 5
    """Wait before the first retry; doubles each time."""
    backoff_max_seconds: Annotated[int, Field(ge=0, le=86400)] = 300
    """Longest wait between two attempts."""
    stall_seconds: Annotated[int, Field(ge=1, le=86400)] = 120
    """A training step may take as long before it hangs, or 10 times the slowest of the last 20."""

    @model_validator(mode="after")
    def _ordered(self) -> "Retries":
        if self.backoff_max_seconds < self.backoff_seconds:
            raise broken(
                "backoffMaxSeconds",
                f"wanted at least backoffSeconds ({self.backoff_seconds}), "
                f"got {self.backoff_max_seconds}",
            )
        return self


class Spec(Part):
    """What the job asks for."""

    queue: Name = "default"
    """Queue whose quota the job counts against."""
    priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] = 0
    """Higher goes first."""
    service_class: Literal["Guaranteed", "BestEffort"] = "BestEffort"
    """How firmly the minimum is promised."""
    suspend: bool = False
    """Whether the job must not run now; a running job is checkpointed and releases everything."""
    managed_by: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """Controller that runs the job: headrace.dev/control-plane if left out."""
    accelerators: Accelerators = Accelerators()
    """The accelerators that the job can use."""
    model: Model | None = None
    """A built-in model. Exactly one of model, script and command."""
    script: Script | None = None
    """Training code of your own. Exactly one of model, script and command."""
    command: Command | None = None
    """A program of your own. Exactly one of model, script and command."""
    data: Data | None = None
    """What the built-in model learns from."""
    env: Annotated[tuple[EnvironmentVariable, ...], Field(max_length=256, strict=False)] = ()
    """Environment variables of every rank."""
    volumes: Annotated[tuple[Volume, ...], Field(max_length=64, strict=False)] = ()
    """What is mounted for every rank."""
    training: Training | None = None
    """Batch, steps, precision and schedule of the built-in model or the script."""
    plans: Annotated[tuple[Plan, ...], Field(min_length=1, max_length=64, strict=False)] | None = (
        None
    )
    """Execution plans that the job may run under, the best of each number of accelerators first;
    if left out, a policy that chooses plans may take any that can train a built-in model, others
    run it data parallel."""
    ignore_memory_estimate: bool = False
    """Whether plans are tried although, by the estimate, they do not fit the memory; one that runs
    out of memory is not tried there again in any case."""
    checkpoint: Checkpoint | None = None
    """Where and when the job's state is saved."""
    retries: Retries = Retries()
    """How failed attempts are forgiven."""
    deadline_seconds: Annotated[int, Field(ge=1, le=YEAR_SECONDS)] | None = None
    """From submission to the end, after which the job fails; no limit if left out."""
    max_run_seconds: Annotated[int, Field(ge=1, le=YEAR_SECONDS)] | None = None
    """Time holding accelerators over all attempts, after which the job fails."""
    ttl_seconds_after_finish: Seconds | None = None
    """When the finished job is forgotten, at the latest; by the cluster's settings if left out."""

    @model_validator(mode="after")
    def _rules(self) -> "Spec":
        broken = next(self._breaches(), None)
        if broken is not None:
            raise broken
        return self

    def _breaches(self) -> Iterator[PydanticCustomError]:
        """Rules that span several parts of the spec."""
        given = [name for name in ("model", "script", "command") if getattr(self, name) is not None]
        if len(given) != 1:
            there = " and ".join(given) or "none"
            yield broken("model", f"wanted exactly one of model, script and command, got {there}")
        elif self.model is not None:
            yield from self._breaches_of_model(self.model)
        elif self.script is not None:
            yield from self._breaches_of_script()
        else:
            yield from self._breaches_of_command()
        for field, names in (
            ("env", [variable.name for variable in self.env]),
            ("volumes", [volume.name for volume in self.volumes]),
        ):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                yield broken(field, f"wanted every name once, got {twice} more than once")

    def _breaches_of_model(self, model: Model) -> Iterator[PydanticCustomError]:
        for name, part in (
            ("data", self.data),
            ("training", self.training),
            ("checkpoint", self.checkpoint),
        ):
            if part is None:
                yield broken(name, f"is required with the built-in model {model.name}")
                return
        assert self.data is not None
        yield from breaches_of_data(model, self.data)
        yield from self._breaches_of_size(fitting(model, self.data.sequence_length or 0))

    def _breaches_of_script(self) -> Iterator[PydanticCustomError]:
        if self.data is not None:
            yield broken("data", "belongs to a built-in model; a script opens its own data")
        for name, part in (("training", self.training), ("checkpoint", self.checkpoint)):
            if part is None:
                yield broken(name, "is required with a script, which is told all of it")
                return
        yield from self._breaches_of_size(infeasible_own_code)

    def _breaches_of_size(self, unfit: Unfit) -> Iterator[PydanticCustomError]:
        """What the batch, and the plans if there are any, ask of the number of accelerators."""
        assert self.training is not None
        batch, fewest = self.training.global_batch_size, self.accelerators.minimum
        if self.plans is not None:
            yield from breaches_of_plans(
                self.plans,
                unfit,
                fewest=fewest,
                most=self.accelerators.most,
                global_batch_size=batch,
                micro_batch_size_max=self.training.micro_batch_size_max or 0,
            )
        elif batch < fewest:
            yield broken(
                "training.globalBatchSize",
                f"wanted a sample for each of at least {counted(fewest, 'accelerator')}, got "
                f"{batch}",
            )
        elif self.accelerators.most == fewest and batch % fewest:
            yield broken(
                "training.globalBatchSize",
                f"wanted a multiple of the {counted(fewest, 'accelerator')} of this rigid job, "
                f"got {batch}",
            )

    def _breaches_of_command(self) -> Iterator[PydanticCustomError]:
        for name, part in (
            ("data", self.data),
            ("training", self.training),
            ("plans", self.plans),
        ):
            if part is not None:
                yield broken(
                    name,
                    "belongs to a built-in model or a script; a command reads its own arguments",
                )
        if self.accelerators.most != self.accelerators.minimum:
            yield broken(
                "accelerators.maximum",
                f"a command runs at one size: wanted {self.accelerators.minimum} (the minimum) or "
                f"nothing, got {self.accelerators.maximum}",
            )


class TrainingJob(Part):
    """A training job."""

    api_version: Literal["headrace.dev/v1alpha1"]
    """headrace.dev/v1alpha1."""
    kind: Literal["TrainingJob"]
    """TrainingJob."""
    metadata: Metadata
    """The object's identity."""
    spec: Spec
    """What the job asks for."""
    status: Status | None = None
    """What was observed; written by Headrace, and not read when it is applied."""


# Made once: making an encoder takes as long as encoding a manifest.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_json(job: TrainingJob) -> str:
    """What people asked for, in one spelling: defaults filled in, keys sorted, no white space.

    Two manifests that mean the same give the same text. What the owner mints and what was observed
    (uid, generation, status) is not part of it.
    """
    document = job.model_dump(
        mode="json",
        by_alias=True,
        exclude_none=True,
        exclude={"status": True, "metadata": {"uid", "generation", "creation_timestamp"}},
    )
    return _CANONICAL.encode(document)


@cache
def _schema() -> dict[str, Any]:
    """Made once: it takes longer than a thousand validations."""
    return json_schema()


def json_schema() -> dict[str, Any]:
    """The schema as JSON Schema, with ``$defs``; CRDs are made from it."""
    return TrainingJob.model_json_schema(by_alias=True)


def parse(document: object) -> TrainingJob | tuple[Problem, ...]:
    """The job that a document describes, or everything that is wrong with it."""
    if not isinstance(document, Mapping):
        came = type(document).__name__
        return (Problem((), f"wanted a mapping with apiVersion and kind, got {came}"),)
    try:
        return TrainingJob.model_validate(document)
    except ValidationError as error:
        return problems_in(error, _schema())
