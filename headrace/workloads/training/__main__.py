"""Train under plain ``torchrun``, or as a single process, without Headrace.

``torchrun --nproc-per-node=2 -m headrace.workloads.training --manifest job.yaml``
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headrace.workloads.collector import importing
from headrace.workloads.control import ControlFolder, StopSignal
from headrace.workloads.ending import ended
from headrace.workloads.host_memory import keep_freed, may_offload, pin_fast


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
    return ended(control, lambda: _run(chosen.manifest, chosen.plan, control, stop))


def _run(manifest: Path, plan: str | None, control: ControlFolder, stop: StopSignal) -> Any:
    document, uid = _read(manifest)
    pin_fast()
    if may_offload(document["spec"], plan or ""):
        keep_freed()

    with importing():
        from headrace.workloads.training.built_in import BuiltInTask
        from headrace.workloads.training.place import without_headrace
        from headrace.workloads.training.spec import TrainingSpec

    spec, task = TrainingSpec.from_manifest(document), BuiltInTask.from_manifest(document)
    with without_headrace(uid, spec, plan=plan or "", control=control, stop=stop) as place:
        return place.trained(task)


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
