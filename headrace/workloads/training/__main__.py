"""Train under plain ``torchrun``, or as a single process, without Headrace.

``torchrun --nproc-per-node=2 -m headrace.workloads.training --manifest job.yaml``
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.workloads.control import Chronicle, ControlFolder, StopSignal
from headrace.workloads.ending import ended

if TYPE_CHECKING:
    from headrace.api.plan import ExecutionPlan


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one rank; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m headrace.workloads.training")
    parser.add_argument("--manifest", required=True, type=Path, help="a TrainingJob")
    parser.add_argument(
        "--control-dir", type=Path, help="folder for progress.jsonl and exit.json (rank 0)"
    )
    parser.add_argument("--plan", help="execution plan, e.g. dp2-z3; data parallel if left out")
    chosen = parser.parse_args(arguments)
    rank = int(os.environ.get("RANK", "0"))
    folder = chosen.control_dir
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    # Every rank looks for ``stop``; only rank 0 writes, or the ranks would overwrite each other.
    stop = StopSignal(folder)
    stop.listen()
    control = ControlFolder(folder if rank == 0 else None)
    return ended(control, lambda: _run(chosen.manifest, chosen.plan, rank, control, stop))


def _run(
    manifest: Path, plan: str | None, rank: int, control: ControlFolder, stop: StopSignal
) -> Any:
    document, uid = _read(manifest)

    import torch

    from headrace.workloads.rendezvous import Rendezvous
    from headrace.workloads.training.built_in import BuiltInTask
    from headrace.workloads.training.run import Rank, Seat, plan_for
    from headrace.workloads.training.spec import TrainingSpec

    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or torch.get_num_threads())
    spec, task = TrainingSpec.from_manifest(document), BuiltInTask.from_manifest(document)
    seat = Seat(
        uid=uid,
        attempt=0,
        plan=_plan(plan) if plan else plan_for(spec, ranks),
        gpu=int(os.environ.get("LOCAL_RANK", "0")) if torch.cuda.device_count() else None,
        node="",
        base=Path(),
    )
    # The elastic agent's store outlives a restart of the ranks, so each restart has its own keys.
    prefix = f"{uid}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    rendezvous = Rendezvous(_store(ranks), rank=rank, ranks=ranks, prefix=prefix, stop=stop)
    chronicle = Chronicle(f"rank {rank} of {ranks}")
    try:
        return Rank(seat, spec, task, rendezvous, control, stop, chronicle).run()
    finally:
        rendezvous.leave()


def _plan(text: str) -> "ExecutionPlan":
    from headrace.api.plan import ExecutionPlan
    from headrace.workloads.refusal import START_REFUSED, WorkloadError

    try:
        return ExecutionPlan.parse(text)
    except ValueError as error:
        raise WorkloadError(START_REFUSED, f"--plan: {error}") from error


def _store(ranks: int) -> Any:
    import torch.distributed as dist

    if ranks == 1:
        return dist.HashStore()
    store, _, _ = next(dist.rendezvous("env://"))
    return store


def _read(manifest: Path) -> tuple[dict[str, Any], str]:
    """The manifest in canonical form, and the uid: its own, else its name."""
    import json

    import yaml

    from headrace.api.manifest import TrainingJob, canonical_json, parse
    from headrace.api.runtime import refusals
    from headrace.workloads.refusal import START_REFUSED, WorkloadError

    try:
        parsed = parse(yaml.safe_load(manifest.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise WorkloadError(START_REFUSED, f"{manifest} cannot be read: {error}") from error
    problems = refusals(parsed) if isinstance(parsed, TrainingJob) else parsed
    if problems or not isinstance(parsed, TrainingJob):
        told = "; ".join(str(problem) for problem in problems)
        raise WorkloadError(START_REFUSED, f"{manifest}: {told}")
    return json.loads(canonical_json(parsed)), parsed.metadata.uid or parsed.metadata.name


if __name__ == "__main__":
    sys.exit(main())
