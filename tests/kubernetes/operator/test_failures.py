"""The operator is killed at a call of its choice, and the end is the same."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.operator.faulty_proxy import Fault, FaultyProxy, Request
from tests.kubernetes.operator.processes import Node, Process, Stage, a_stage, eventually, run

LAST_CALL = 6
"""Calls of a job's life: list, finalizer, event and status of its end; then, going, the finalizer,
and a spare one for what a restart adds."""
EVERY_DAY = [(2, Fault.UNANSWERED), (4, Fault.LOST), (5, Fault.UNANSWERED)]
ALL = [(call, fault) for call in range(1, LAST_CALL) for fault in Fault]
POINTS = ALL if os.environ.get("HEADRACE_ALL_KILLS") == "1" else EVERY_DAY


class Killer:
    """Kills the operator at one call, and starts another one."""

    def __init__(self, stage: Stage, call: int, fault: Fault) -> None:
        self._stage, self._call, self._fault = stage, call, fault
        self.victim: Process | None = None
        self.killed: Request | None = None

    def rule(self, request: Request) -> Fault | None:
        if request.number != self._call or self.killed is not None or self.victim is None:
            return None
        self.killed = request
        if self._fault is Fault.LOST:
            self.victim.send(signal.SIGKILL)
            return Fault.LOST
        # What it asked for is carried out, while it is dead already.
        self.victim.send(signal.SIGKILL)
        return Fault.UNANSWERED

    async def start_again(self) -> None:
        """Starts the operator anew, as the kubelet would, once it is dead."""
        assert self.victim is not None
        await self.victim.ends()
        await self._stage.operator(identity="pod")


@pytest.mark.parametrize(("call", "fault"), POINTS, ids=lambda part: getattr(part, "name", part))
def test_an_operator_killed_at_a_call_leaves_the_same_end(
    api_server: ApiServer, namespace: str, tmp_path: Path, call: int, fault: Fault
) -> None:
    async def test() -> None:
        async with (
            a_stage(api_server, namespace, tmp_path) as stage,
            Node(stage) as node,
            FaultyProxy(api_server).running(tmp_path) as proxy,
        ):
            killer = Killer(stage, call, fault)
            proxy.rule = killer.rule
            killer.victim = await stage.operator(identity="pod", kubeconfig=proxy.kubeconfig)
            again = asyncio.create_task(killer.start_again())
            uid = stage.create("train")["metadata"]["uid"]
            await stage.condition("train", "Succeeded", "True")
            told = await eventually("its end is told", lambda: _told(stage, "Succeeded"))
            stage.delete("train")
            await stage.gone("train")
            await stage.no_jobs()
            assert killer.killed is not None, [str(each) for each in proxy.seen]
            await again
        assert node.starts == [(uid, 1)], "it was started once"
        assert told == 1, "and its end was told once"

    run(test())


def _told(stage: Stage, reason: str) -> int:
    return sum(event.reason == reason for event in stage.events())
