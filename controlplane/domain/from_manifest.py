"""A manifest as people write it -> the job as the control plane decides about it."""

import json

from controlplane.domain.ids import JobUid, QueueName
from controlplane.domain.job import (
    AcceleratorRequest,
    Job,
    JobSpec,
    Owner,
    ServiceClass,
    Toleration,
    Topology,
)
from controlplane.domain.memory import model_text
from controlplane.domain.model_type import type_named, type_text
from headrace.api.manifest import TrainingJob, canonical_json
from headrace.api.model_choice import model_name
from headrace.api.plan import ExecutionPlan
from headrace.api.profile_rows import Asked


def spec_of(manifest: TrainingJob, *, own_pod: bool = False) -> JobSpec:
    """What deciding needs of a manifest.

    Args:
        manifest: The manifest.
        own_pod: Whether its owner makes pods for it.
    """
    spec = manifest.spec
    wanted = spec.accelerators
    training = spec.training
    model_type = _type_of(manifest)
    return JobSpec(
        queue=QueueName(spec.queue),
        accelerators=AcceleratorRequest(
            minimum=wanted.minimum,
            maximum=wanted.most,
            type=wanted.type,
            selector=tuple(sorted(wanted.selector.items())),
            tolerations=tuple(Toleration(t.key, t.value) for t in wanted.tolerations),
            topology=Topology(wanted.topology),
            cpu_cores_each=wanted.cpu_cores_each,
            host_memory_bytes_each=wanted.host_memory_bytes_each,
        ),
        priority=spec.priority,
        service_class=ServiceClass(spec.service_class),
        elastic=spec.command is None,
        unit_per_node=spec.command is not None,
        global_batch_size=training.global_batch_size if training else 0,
        micro_batch_size_max=(training.micro_batch_size_max or 0) if training else 0,
        plans=tuple(map(ExecutionPlan.parse, spec.plans or ())),
        model=_model_of(manifest),
        model_type=model_type,
        any_plan=bool(model_type) and not spec.plans,
        steps=training.steps if training else 0,
        suspend=spec.suspend,
        max_retries=spec.retries.max,
        backoff_seconds=spec.retries.backoff_seconds,
        backoff_max_seconds=spec.retries.backoff_max_seconds,
        deadline_seconds=spec.deadline_seconds or 0,
        max_run_seconds=spec.max_run_seconds or 0,
        ttl_seconds_after_finish=(
            -1 if spec.ttl_seconds_after_finish is None else spec.ttl_seconds_after_finish
        ),
        manifest_json=canonical_json(manifest),
        own_pod=own_pod,
    )


def _model_of(manifest: TrainingJob) -> str:
    """What the memory of its plans is estimated from; empty if it is not to be."""
    spec = manifest.spec
    if spec.model is None or spec.training is None or spec.ignore_memory_estimate:
        return ""
    if spec.model.preset is None:
        return ""  # Only the nodes can read its sizes, from the folder of its weights.
    length = (spec.data.sequence_length or 0) if spec.data else 0
    config = spec.model.config.given()
    return model_text(spec.model.name, spec.model.preset, config, length, spec.training.precision)


def _type_of(manifest: TrainingJob) -> str:
    """Under which name what is measured of its steps is known.

    Empty where nothing can be shared: only the nodes know the sizes of stored weights, and a
    script or a command is called like its file, which says little about what it trains.
    """
    spec = manifest.spec
    if spec.model is None or spec.training is None:
        return ""
    shape = spec.model.shape((spec.data.sequence_length or 0) if spec.data else 0)
    if shape is None:
        return ""
    # As `model_of` reads it for what the job tells in passing.
    name = model_name(json.loads(canonical_json(manifest))["spec"])
    batch, precision = spec.training.global_batch_size, spec.training.precision
    told = type_text(Asked(name, 0, batch, shape.sequence_length, precision))
    return told if type_named(told) is not None else ""


def job_from_manifest(
    manifest: TrainingJob,
    *,
    uid: JobUid,
    generation: int = 1,
    owner: Owner = Owner.CONTROL_PLANE,
    submitter: str = "",
    own_pod: bool = False,
) -> Job:
    """The job that a manifest describes, under an identity that its owner minted."""
    return Job(
        uid=uid,
        namespace=manifest.metadata.namespace,
        name=manifest.metadata.name,
        generation=generation,
        spec=spec_of(manifest, own_pod=own_pod),
        owner=owner,
        submitter=submitter,
    )
