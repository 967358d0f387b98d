"""The custom resource ``Queue``."""

from headrace.api.manifest_queue import Queue
from operators.crds.definition import Column, Definition, ready_columns
from operators.crds.rule import NAMED, Elsewhere

QUEUE = Definition(
    kind="Queue",
    plural="queues",
    short_names=("hrqueue", "hrqueues"),
    namespaced=False,
    schema=Queue.model_json_schema(by_alias=True),
    rules={"": (NAMED,)},
    elsewhere=(
        Elsewhere(
            "a quota larger than the cluster is told, and not refused",
            "nodes come and go",
            "controlplane.edges.grpc_server.queue_warnings",
        ),
    ),
    columns=(
        Column("QUOTA", ".spec.quotaAccelerators", "integer", "Accelerators that are its own."),
        Column("BORROWS", ".spec.borrowingAccelerators", "integer", "So many more, or -1 for any."),
        Column("HELD", ".status.heldAccelerators", "integer", "Accelerators that its jobs hold."),
        Column("RUNNING", ".status.jobsRunning", "integer", "Jobs that hold some."),
        Column("WAITING", ".status.jobsWaiting", "integer", "Jobs that wait for some."),
        Column(
            "WANTED",
            ".status.waitingAccelerators",
            "integer",
            "The fewest accelerators that those could begin with.",
            wide=True,
        ),
        Column("NAMESPACES", ".spec.namespaces", "string", "Whose jobs it takes; empty for all."),
        *ready_columns("Why not, or what to know."),
    ),
)
