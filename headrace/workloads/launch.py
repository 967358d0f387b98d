"""What an actor starts: one unit of an attempt, told by the files of its control folder.

Unit 0 publishes its socket before anything slow is imported, so the other units start meanwhile.
"""

import os
import socket
import sys
from pathlib import Path
from typing import Any

from headrace.api.variables import CONTROL_DIR_VARIABLE
from headrace.workloads import rendezvous as meeting
from headrace.workloads.collector import importing
from headrace.workloads.control import Chronicle, ControlFolder, Launch, StopSignal
from headrace.workloads.ending import ended
from headrace.workloads.host_memory import keep_freed, may_offload, pin_fast
from headrace.workloads.network import address_towards, use_interface_of
from headrace.workloads.refusal import (
    CANNOT_BE_TRAINED,
    RANK_FAILED,
    RANK_LOST,
    StoppedBeforeTraining,
    WorkloadError,
    reason_of,
)


def main() -> int:
    """Run the unit; returns its exit status."""
    named = os.environ.get(CONTROL_DIR_VARIABLE)
    if not named:
        sys.stderr.write(f"{CONTROL_DIR_VARIABLE} is not set; it is the agent that starts this\n")
        return 2
    control = ControlFolder(Path(named))
    stop = StopSignal(control.path)
    stop.listen()
    return ended(control, lambda: _run(control, stop))


def _run(control: ControlFolder, stop: StopSignal) -> Any:
    launch = control.launch()
    try:
        return _started(launch, control, stop)
    except StoppedBeforeTraining:
        if launch.joins:
            raise StoppedBeforeTraining("was not needed any more") from None
        raise


def _started(launch: Launch, control: ControlFolder, stop: StopSignal) -> Any:
    chronicle = Chronicle(f"unit {launch.unit} of {launch.units_total}")
    bound: socket.socket | None = None
    if launch.unit == 0:
        bound = meeting.bind(launch.bind_address)
        control.publish_rendezvous(meeting.address_of(bound))
    if stop.asked():
        raise StoppedBeforeTraining

    spec = launch.manifest.get("spec") or {}
    if not spec.get("command"):  # which has an environment of its own
        pin_fast()
    if may_offload(spec, launch.plan):
        keep_freed()

    with importing():
        import torch

    chronicle.say(f"torch {torch.__version__} imported")
    threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, len(launch.cpu_cores)))
    torch.set_num_threads(threads)
    met = meeting.host(bound, launch, stop) if bound else meeting.join(launch, stop)
    chronicle.say("joined the rendezvous")
    try:
        return _work(launch, met, control, stop, chronicle)
    except StoppedBeforeTraining:
        raise
    except BaseException as error:
        met.report_failure(*reason_of(error))
        raise
    finally:
        met.leave()


def _work(
    launch: Launch,
    met: meeting.Rendezvous,
    control: ControlFolder,
    stop: StopSignal,
    chronicle: Chronicle,
) -> Any:
    spec = launch.manifest.get("spec") or {}
    if spec.get("command"):
        from headrace.workloads.command import run_command

        return run_command(launch, spec["command"], met, stop, chronicle)

    with importing():
        from headrace.workloads.training.built_in import BuiltInTask
        from headrace.workloads.training.place import Place
        from headrace.workloads.training.spec import TrainingSpec

    place = Place(
        _seat(launch), TrainingSpec.from_manifest(launch.manifest), met, control, stop, chronicle
    )
    if spec.get("script"):
        from headrace.workloads.script import run_script

        return run_script(spec["script"], place)

    return place.trained(BuiltInTask.from_manifest(launch.manifest))


def _seat(launch: Launch) -> Any:
    """What a rank is told, for the trainer."""
    if launch.unit == 0:
        use_interface_of(launch.bind_address)
    else:
        try:
            use_interface_of(address_towards(*meeting.split_address(launch.rendezvous)))
        except OSError as error:
            raise WorkloadError(
                RANK_LOST, f"nobody listens at the rendezvous {launch.rendezvous} any more: {error}"
            ) from error

    from headrace.api.plan import ExecutionPlan
    from headrace.workloads.training.run import Seat

    try:
        plan = ExecutionPlan.parse(launch.plan)
    except ValueError as error:
        raise WorkloadError(
            CANNOT_BE_TRAINED, f"the plan is unknown to this release: {error}"
        ) from error
    return Seat(
        uid=launch.uid,
        attempt=launch.attempt,
        plan=plan,
        gpu=None if launch.accelerator_type == "cpu" else 0,
        node=launch.node or socket.gethostname(),
        base=Path(),
        joins=launch.joins,
    )


def leave_now(status: int) -> None:
    """End without destructors: those of a broken process group may wait for ever."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    try:
        result = main()
    except BaseException as error:
        sys.stderr.write(f"{RANK_FAILED}: {error!r}\n")
        result = 1
    leave_now(result)
