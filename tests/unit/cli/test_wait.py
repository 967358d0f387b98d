"""The bars of ``apply --wait``, on a terminal, and its end in time."""

import io

import pytest
from rich.console import Console

from headrace.api.generated import common_pb2, jobs_pb2
from headrace.cli.wait import bars, deadline
from headrace.client.client import Client
from headrace.client.context import Context
from headrace.client.trouble import CallError, Kind


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


def test_a_call_that_the_deadline_cut_off_is_no_error() -> None:
    # Nobody listens there, and the client would ask again for an hour.
    with Client(Context("127.0.0.1:9"), patience_seconds=3600.0) as client:
        with deadline(client, 0.05):
            client.get_job_by_uid("uid-gpt")
        with pytest.raises(CallError), deadline(client, 0.0):
            raise CallError(Kind.REFUSED, "not for you")
