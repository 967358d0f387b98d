"""The bars of ``apply --wait``, on a terminal."""

import io

from rich.console import Console

from headrace.api.generated import common_pb2, jobs_pb2
from headrace.cli.wait import bars


def a_job(*, step: int = 0, total: int = 0, plan: str = "") -> jobs_pb2.Job:
    progress = common_pb2.Progress(step=step, steps_total=total)
    status = jobs_pb2.JobStatus(stage="Running", plan=plan, progress=progress)
    return jobs_pb2.Job(name="gpt", uid="uid-gpt", status=status)


def test_a_job_is_shown_from_its_first_change_on() -> None:
    screen = io.StringIO()
    with bars(Console(file=screen, force_terminal=True, width=80, color_system=None)) as shown:
        shown.show(a_job(total=600))
        shown.show(a_job(step=300, total=600, plan="dp4"))
    assert "gpt" in screen.getvalue()
    assert "300/600 50% Running dp4 loss -" in screen.getvalue()


def test_a_job_without_a_known_number_of_steps_is_shown_too() -> None:
    screen = io.StringIO()
    with bars(Console(file=screen, force_terminal=True, width=80, color_system=None)) as shown:
        shown.show(a_job(plan="dp2"))
    assert "- Running dp2" in screen.getvalue()
    assert "None" not in screen.getvalue()
