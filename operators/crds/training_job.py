"""The custom resource ``TrainingJob``."""

from headrace.api.manifest import json_schema
from operators.crds.definition import Column, Definition
from operators.crds.training_job_rules import ELSEWHERE, RULES

_SUMMARY = '.status.conditions[?(@.type=="Succeeded")]'
"""The condition that sums up how a job is."""

# There is no subresource `scale`: a job has a fewest and a most, and which number between the two
# it gets is the policy's decision. One number that others write would have to mean both.
TRAINING_JOB = Definition(
    kind="TrainingJob",
    plural="trainingjobs",
    short_names=("hrjob", "hrjobs"),
    namespaced=True,
    schema=json_schema(),
    rules=RULES,
    elsewhere=ELSEWHERE,
    columns=(
        Column("QUEUE", ".spec.queue", "string", "Queue whose quota the job counts against."),
        Column("PLAN", ".status.plan", "string", "Execution plan that runs now."),
        Column("GPUS", ".status.accelerators", "integer", "Accelerators held now."),
        Column("PROGRESS", ".status.columns.progress", "string", "Steps done of all."),
        Column("ETA", ".status.columns.eta", "string", "When it will be done, in UTC."),
        Column("STATE", f"{_SUMMARY}.reason", "string", "Why it is as it is, as one word."),
        Column(
            "THROUGHPUT",
            ".status.columns.throughput",
            "string",
            "Samples a second over all ranks.",
            wide=True,
        ),
        Column(
            "RECONFIGS",
            ".status.reconfigurations",
            "integer",
            "Planned changes of plan or place so far.",
            wide=True,
        ),
        Column(
            "REASON", f"{_SUMMARY}.message", "string", "The same as a sentence with numbers.", True
        ),
    ),
)
