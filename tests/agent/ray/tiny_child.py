"""A tiny rank that speaks the control folder's protocol, steered by its manifest.

``spec.command.program`` is a word for each thing it does. It imports nothing of Headrace, so that
a test sees the protocol and not a shared piece of code.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

FOLDER = Path(os.environ["HEADRACE_CONTROL_DIR"])
STEP_SECONDS = 0.05


def write(name: str, value: object) -> None:
    draft = FOLDER / f"{name}.new"
    draft.write_text(value if isinstance(value, str) else json.dumps(value))
    draft.replace(FOLDER / name)


def leave(outcome: str, step: int, code: int = 0, reason: str = "", message: str = "") -> None:
    write(
        "exit.json",
        {"outcome": outcome, "step": step, "reason": reason, "message": message},
    )
    print(f"leaving as {outcome} at step {step}", flush=True)
    sys.exit(code)


class Plan:
    """The plan in force; goes over to another one as soon as it is asked for."""

    def __init__(self, launched: str) -> None:
        self.now = self.seen = launched

    def look(self, step: int) -> None:
        wanted = (FOLDER / "plan").read_text() if (FOLDER / "plan").exists() else self.seen
        if wanted == self.seen:
            return
        self.seen = wanted
        line: dict[str, object] = {"to": wanted, "refused": "too many"}
        if wanted != "dp9":
            seconds = {"build": 0.1, "stood_still": 0.5}
            line = {"from": self.now, "to": wanted, "step": step, "seconds": seconds}
            self.now = wanted
        with (FOLDER / "changes.jsonl").open("a") as changes:
            changes.write(json.dumps(line) + "\n")


def main() -> None:
    launch = json.loads((FOLDER / "launch.json").read_text())
    wishes = launch["manifest"]["spec"]["command"]["program"]
    with (FOLDER / "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    print(f"attempt {launch['attempt']} unit {launch['unit']}", flush=True)
    if "show-environment" in wishes:
        write(
            "environment.json",
            {
                "environment": dict(os.environ),
                "affinity": sorted(os.sched_getaffinity(0)),
                "session": os.getsid(0) == os.getpid(),
                "uid": os.getuid(),
            },
        )
    if "ignore-sigterm" in wishes:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "grandchild" in wishes:
        orphan = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        write("grandchild", str(orphan.pid))
    if "fail" in wishes:
        print("Traceback: the tiny child gives up", flush=True)
        sys.exit(3)
    listener = None
    if launch["unit"] == 0:
        listener = socket.create_server((launch["bind_address"], 0))
        write("rendezvous", "{}:{}".format(*listener.getsockname()))
    else:
        host, port = launch["rendezvous"].rsplit(":", 1)
        socket.create_connection((host, int(port)), 10).close()
    steps = int(launch["manifest"]["spec"].get("training", {}).get("steps", 1_000_000))
    pause = threading.Event()
    step, plan = 0, Plan(launch["plan"])
    while step < steps:
        if (FOLDER / "stop").exists():
            leave("Stopped", step)
        plan.look(step)
        step += 1
        if launch["unit"] == 0:
            line = {
                "step": step,
                "loss": 1.0 / step,
                "step_seconds": STEP_SECONDS,
                "checkpoint_step": step - step % 10,
            }
            with (FOLDER / "progress.jsonl").open("a") as progress:
                progress.write(json.dumps(line) + "\n")
        pause.wait(STEP_SECONDS)
    leave("Succeeded", step)


if __name__ == "__main__":
    main()
