"""Writes docs/kubernetes/transcript.md from what a real node answers: `make e2e-transcript`.

Each command is run as it stands there, with `kubectl` and `helm` on the path, after one another.
"""

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.architecture.source_tree import ROOT
from tests.kubernetes.e2e.release import NAMESPACE, NEXT, VALUES, Release, condition, step
from tests.kubernetes.programs import program
from tests.kubernetes.real_node import build_images, node

PAGE = ROOT / "docs" / "kubernetes" / "transcript.md"
_WIDTH = 80
_JOB = """\
apiVersion: headrace.dev/v1alpha1
kind: TrainingJob
metadata: {name: gpt}
spec:
  accelerators: {minimum: 1, maximum: 1}
  model: {name: gpt2, preset: tiny}
  data: {source: python-stdlib}
  training: {globalBatchSize: 8, steps: 12000}
  checkpoint: {store: /checkpoints, everySteps: 500}
"""
_HEAD = """\
# A job on a real kubelet

<!-- Written by tests/kubernetes/e2e/transcript.py from what the commands answered. Do not edit. -->

One node with two CPU slots, the images of `deploy/images`, the chart with
`tests/kubernetes/e2e/values.yaml`.
"""


class Transcript:
    """Runs commands and keeps what they answered, folded to the width of a terminal."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self._parts: list[str] = []
        programs = {str(program(name).parent) for name in ("kubectl", "helm")}
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(release.api_server.kubeconfig),
            "PATH": os.pathsep.join([*programs, os.environ["PATH"]]),
        }

    def title(self, text: str) -> None:
        """Begins a section."""
        self._parts.append(f"\n## {text}\n")

    def run(self, *words: str, keep: Callable[[str], str] = str) -> None:
        """Runs a command to its end."""
        ended = subprocess.run(
            words, cwd=ROOT, env=self._environment, capture_output=True, check=True, text=True
        )
        self._show(words, keep(ended.stdout))

    def watch(self, *words: str, until: Callable[[], None]) -> None:
        """Runs a command until something has become true."""
        with subprocess.Popen(
            words, cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, text=True
        ) as watching:
            assert watching.stdout is not None
            told: list[str] = []
            reader = threading.Thread(target=told.extend, args=(watching.stdout,))
            reader.start()
            try:
                until()
            finally:
                watching.terminate()
                reader.join()
        self._show(words, "".join(told))

    def write(self) -> None:
        """Writes the page."""
        PAGE.write_text(_HEAD + "".join(self._parts), encoding="utf-8")

    def _show(self, words: tuple[str, ...], answer: str) -> None:
        command = textwrap.wrap(f"$ {' '.join(words)}", _WIDTH - 2, subsequent_indent="    ")
        lines = [*(f"{line} \\" for line in command[:-1]), command[-1]]
        for line in answer.rstrip().splitlines():
            lines += textwrap.wrap(line.rstrip(), _WIDTH, drop_whitespace=False) or [""]
        text = "\n".join(line.rstrip() for line in lines)
        self._parts.append(f"\n```\n{text}\n```\n")


def record(release: Release) -> None:
    """Install, apply, watch, change the number of ranks, upgrade, and the end."""
    page = Transcript(release)
    chart = ("headrace", "deploy/helm/headrace", "-n", NAMESPACE)
    values = tuple(word for file in VALUES for word in ("-f", _short(file)))
    watch = ("kubectl", "get", "trainingjob", "gpt", "-w")

    def until(what: str, holds: Callable[[dict[str, object]], object]) -> Callable[[], None]:
        return lambda: release.wait_status("gpt", what, holds)

    page.title("Install")
    page.run("helm", "install", *chart, *values, keep=lambda told: told.partition("\n\n")[0])
    release.wait_ready()
    page.run("kubectl", "-n", NAMESPACE, "get", "pods")
    page.title("Apply")
    job = release.api_server.folder / "job.yaml"
    job.write_text(_JOB)
    page.run("cat", str(job))
    page.run("kubectl", "apply", "-f", str(job))
    page.watch(*watch, until=until("makes steps", lambda told: step(told) > 200))
    page.title("Another plan")
    change = '{"spec":{"accelerators":{"maximum":2},"plans":["dp2","dp1"]}}'
    page.run("kubectl", "patch", "trainingjob", "gpt", "--type=merge", "-p", change)
    page.watch(*watch, until=until("has gone over", _has_gone_over))
    page.title("Upgrade while it trains")
    page.run(
        *("helm", "upgrade", *chart, *values, "--set", f"image.tag={NEXT}"),
        keep=lambda told: told.partition("\n\n")[0],
    )
    release.wait_ready()
    page.run("kubectl", "-n", NAMESPACE, "get", "pods")
    page.title("The end")
    page.watch(*watch, until=until("ends", lambda told: condition(told, "Succeeded") == "True"))
    page.run("kubectl", "get", "trainingjob", "gpt", "-o", "jsonpath={.status.attempt}")
    page.run("kubectl", "get", "events.events.k8s.io", "--sort-by=.eventTime")
    page.write()


def _has_gone_over(told: dict[str, object]) -> bool:
    return told.get("plan") == "dp2" and told.get("reconfigurations") == 1


def _short(file: Path) -> str:
    return str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else str(file)


def main() -> int:
    """Starts a node, records, and ends it; the exit status."""
    started = time.monotonic()
    with node.real_node(build_images.archives()) as (its_node, api_server):
        for image in build_images.IMAGES:
            name = build_images.name_of(image)
            its_node.tag_image(name, f"{name.rpartition(':')[0]}:{NEXT}")
        release = Release(api_server, its_node.within())
        release.prepare()
        record(release)
        api_server.close()
    print(f"{PAGE.relative_to(ROOT)} in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
