"""Environment variables of a rank that are not the user's to set."""

CONTROL_DIR_VARIABLE = "HEADRACE_CONTROL_DIR"
"""Carried by every process of a launch unit: its control folder."""

JOB_POD_VARIABLE = "HEADRACE_JOB_POD"
"""Carried by the first process of a job's own pod: ``UID/ATTEMPT``, by which the agent finds it."""
JOB_POD_ADDRESS_VARIABLE = "HEADRACE_POD_ADDRESS"
"""The pod's own address, where ranks of other pods reach its ranks."""

RESERVED_VARIABLES = frozenset(
    {
        "CUDA_VISIBLE_DEVICES",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "NNODES",
        "NODE_RANK",
        "NPROC_PER_NODE",
        "OMP_NUM_THREADS",
        "PET_MASTER_ADDR",
        "PET_MASTER_PORT",
        "PET_NNODES",
        "PET_NODE_RANK",
        "PET_NPROC_PER_NODE",
        "RANK",
        "WORLD_SIZE",
    }
)
"""Variables that Headrace sets for every rank; a manifest may not."""

VARIABLES_OF_TORCHRUN = frozenset(
    {
        "GROUP_RANK",
        "GROUP_WORLD_SIZE",
        "ROLE_NAME",
        "ROLE_RANK",
        "ROLE_WORLD_SIZE",
        "TORCHELASTIC_MAX_RESTARTS",
        "TORCHELASTIC_RESTART_COUNT",
        "TORCHELASTIC_RUN_ID",
        "TORCHELASTIC_USE_AGENT_STORE",
    }
)
"""Variables that torchrun sets for every rank beside those, whatever they were before."""


def setter_of(name: str) -> str | None:
    """Who sets this variable for every rank; None if the user may."""
    if name in RESERVED_VARIABLES or name.startswith("HEADRACE_"):
        return "Headrace"
    return "torchrun" if name in VARIABLES_OF_TORCHRUN else None
