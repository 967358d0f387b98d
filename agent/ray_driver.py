"""The agent's child that speaks to Ray: JSON lines in on stdin, JSON lines out on stdout.

Requests carry an ``id``; the answer with that id holds ``value`` or ``error``. The first line out
says that Ray was joined. It ends when the agent closes the pipe, and dies with the agent or with
Ray; in that case the agent starts another.
"""

import argparse
import contextlib
import ctypes
import json
import os
import queue
import signal
import socket
import sys
import threading
from typing import IO, Any

from agent import ray_actors

START_TIMEOUT_SECONDS = 120.0


def main() -> None:
    """Serves one agent until it closes the pipe."""
    parser = argparse.ArgumentParser(prog="agent.ray_driver")
    parser.add_argument("--node", required=True)
    parser.add_argument("--ray-address", required=True)
    parser.add_argument("--ray-node-ip", default="")
    parser.add_argument("--agent-pid", type=int, required=True)
    options = parser.parse_args()
    _die_with(options.agent_pid)
    # Whatever Ray prints goes to stderr; stdout is for answers alone.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    here = ray_actors.RayNode(options.node, options.ray_address, options.ray_node_ip)
    here.connect()
    _die_with_raylet(here.raylet_socket)
    lock = threading.Lock()

    def answer(message: dict[str, Any]) -> None:
        with lock:
            answers.write(json.dumps(message) + "\n")

    answer({"ready": here.units()})
    _serve(here, sys.stdin, answer)
    here.close()


def _serve(here: ray_actors.RayNode, requests: IO[str], answer: Any) -> None:
    """Starts go side by side, since an actor takes long to come up on a busy machine."""
    waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def work() -> None:
        while (request := waiting.get()) is not None:
            try:
                answer({"id": request["id"], "value": _carry_out(here, request)})
            except Exception as error:  # whatever Ray raises is an answer for the agent
                answer({"id": request["id"], "error": f"{type(error).__name__}: {error}"})

    workers = [threading.Thread(target=work, daemon=True) for _ in range(8)]
    for worker in workers:
        worker.start()
    for line in requests:
        waiting.put(json.loads(line))
    for _ in workers:
        waiting.put(None)


def _carry_out(here: ray_actors.RayNode, request: dict[str, Any]) -> Any:
    match request["op"]:
        case "start_unit":
            return here.start_unit(request["name"], request["spec"], START_TIMEOUT_SECONDS)
        case "kill":
            return here.kill(request["name"])
        case "units":
            return here.units()
        case unknown:
            raise ValueError(f"no such request: {unknown}")


def _die_with(agent_pid: int) -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != agent_pid:
        os._exit(1)


def _die_with_raylet(listens_at: str) -> None:
    """Ends this process as soon as the raylet ends that it has joined.

    Ray by itself ends a driver only if no head answers for a minute. Should another one come up at
    the same address meanwhile, the driver would ask it thousands of times a second for what only
    the old one knew.
    """
    raylet = socket.socket(socket.AF_UNIX)
    raylet.connect(listens_at)

    def wait() -> None:
        with contextlib.suppress(ConnectionError):
            raylet.recv(1)  # it says nothing to one that does not ask
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    main()
