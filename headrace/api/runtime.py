"""What a runtime can honour. A field beyond that is refused with a reason, never ignored."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from headrace.api.manifest import MANAGED_BY_HEADRACE, Checkpoint, TrainingJob, Volume
from headrace.api.refusal import Problem

STORE_SCHEMES = frozenset(
    (
        *("abfs", "abfss", "az", "adl", "arrow_hdfs", "file", "gcs", "gs", "hdfs", "hf", "lakefs"),
        *("memory", "oci", "ocilake", "oss", "s3", "s3a", "sftp", "smb", "ssh", "tos", "tosfs"),
        *("webdav", "webhdfs"),
    )
)
"""Schemes of URLs that fsspec, or a package that brings its own to it, can write to."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the place where ranks run is able to do.

    Attributes:
        name: How sentences call it.
        images: Whether it starts containers from images.
        mounts: Whether it mounts claims.
        node_folders: Whether ranks see the folders of their node.
        secrets: Whether it can look up secrets.
        managers: Values of ``managedBy`` that mean this runtime.
        precisions: Precisions that the built-in models can compute in here.
    """

    name: str
    images: bool = False
    mounts: bool = False
    node_folders: bool = True
    secrets: bool = True
    managers: frozenset[str] = frozenset({MANAGED_BY_HEADRACE})
    precisions: frozenset[str] = frozenset({"fp32", "bf16"})


PROCESSES = Runtime("a cluster of plain processes")
"""Ranks are processes that Ray actors start: no containers and no mounts. Secrets are files of the
nodes, which agents read when a rank starts (``HEADRACE_SECRETS_DIR``)."""

PODS = Runtime("a pod of the job's own", images=True, mounts=True, node_folders=False)
"""Ranks are processes of a pod on each node, in the job's namespace: its image, secrets, claims."""


def refusals(job: TrainingJob, runtime: Runtime = PROCESSES) -> tuple[Problem, ...]:
    """Every field of ``job`` that ``runtime`` cannot honour, with the reason."""
    return tuple(_refused(job, runtime))


def _refused(job: TrainingJob, runtime: Runtime) -> Iterator[Problem]:
    spec = job.spec
    if spec.managed_by is not None and spec.managed_by not in runtime.managers:
        yield Problem(
            ("spec", "managedBy"),
            f"{spec.managed_by} runs this job, and this is not it; "
            f"wanted {' or '.join(sorted(runtime.managers))}, or nothing",
        )
    if spec.command is not None:
        if spec.command.image is not None and not runtime.images:
            yield Problem(
                ("spec", "command", "image"),
                f"{runtime.name} starts no containers; leave it out and install what the program "
                "needs on the nodes, or run the job in Kubernetes",
            )
        if spec.checkpoint is not None:
            yield Problem(
                ("spec", "checkpoint"),
                "Headrace cannot save the state of a program of yours; leave it out and let the "
                "program write its own checkpoints",
            )
    if spec.checkpoint is not None:
        yield from _stores_of_no_kind(spec.checkpoint)
        yield from _stores_that_go(spec.checkpoint.store, spec.volumes, runtime)
    for index, volume in enumerate(spec.volumes):
        same_path = volume.host_path is not None and volume.host_path.path == volume.mount_path
        if volume.host_path is not None and not runtime.node_folders:
            yield Problem(
                ("spec", "volumes", index),
                f"{runtime.name} sees no folder of its node; wanted a persistentVolumeClaim, or a "
                "job without image, claims and secrets of its own",
            )
        elif not runtime.mounts and not same_path:
            yield Problem(
                ("spec", "volumes", index),
                f"{runtime.name} mounts nothing; wanted a hostPath whose path is the mountPath, "
                "because ranks see the node's own files",
            )
    for index, variable in enumerate(spec.env):
        if variable.value_from is not None and not runtime.secrets:
            yield Problem(
                ("spec", "env", index, "valueFrom"),
                f"{runtime.name} has no secret store to read from; leave it out",
            )
    if spec.training is not None and spec.training.precision not in runtime.precisions:
        yield Problem(
            ("spec", "training", "precision"),
            f"{spec.training.precision} needs loss scaling, which is not there yet; "
            f"wanted {' or '.join(sorted(runtime.precisions))}",
        )


def _stores_that_go(store: str, volumes: Iterable[Volume], runtime: Runtime) -> Iterator[Problem]:
    """A store of which nothing would be left when the next attempt looks for it."""
    if runtime.node_folders or "://" in store:
        return
    claims = [each.mount_path for each in volumes if each.persistent_volume_claim is not None]
    if not any(map(PurePosixPath(store).is_relative_to, claims)):
        yield Problem(
            ("spec", "checkpoint", "store"),
            f"{runtime.name} goes with what it wrote into {store}; wanted a URL, or a path below "
            "the mountPath of one of the job's claims",
        )


def _stores_of_no_kind(checkpoint: Checkpoint) -> Iterator[Problem]:
    """Stores that no node could open, so that nobody waits for accelerators to hear it."""
    start = checkpoint.start_from
    other = (start.store if start else None) or ""
    named = {("store",): checkpoint.store, ("startFrom", "store"): other}
    for path, store in named.items():
        scheme = store.partition("://")[0].rpartition("::")[2] if "://" in store else ""
        if scheme and scheme not in STORE_SCHEMES:
            yield Problem(
                ("spec", "checkpoint", *path),
                f"wanted a path, or a URL with one of {', '.join(sorted(STORE_SCHEMES))}, got "
                f"{scheme}://",
            )
