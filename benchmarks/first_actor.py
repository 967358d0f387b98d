"""From ``kubectl apply`` to the first actor, and from a change to the status that tells of it.

    python benchmarks/first_actor.py [--jobs 20] [--csv]

Everything is real and on this machine: etcd, kube-apiserver, kubectl, the operator, and the local
cluster of ``headrace up`` (control plane, Ray, two agents with two CPU slots each). Jobs come one
after the other to an idle cluster: each runs a command of the user's own that waits 3 s, so that
no torch is imported. It needs the programs of ``make kube-binaries``.

- *actor*: from the start of ``kubectl apply`` until the control plane has the report that the
  job's first actor is alive. Targets: 2 s in half of the jobs, 5 s in 99 of 100.
- *status*: from the event in the control plane's log that an attempt started, or that the job
  ended, until a watch at the API server shows it. Target: 1 s.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._processes import Child, a_folder, machine, serving
from benchmarks.custom_resources import NAMESPACE, kubernetes
from headrace.cli.local_cluster import read_record
from tests.cluster.local_cluster import LocalCluster, command, until
from tests.kubernetes.api_server import ApiServer
from tests.kubernetes.programs import program

RUNS_SECONDS = 3
"""So long that its start and its end are not told in one write."""


@dataclass(frozen=True)
class Row:
    """One job; seconds.

    Attributes:
        accepted: From ``kubectl apply`` until the control plane had the job.
        actor: From ``kubectl apply`` until its first actor was reported to be alive.
        status_of_start: From that report until the object's status showed it.
        status_of_end: From the end in the log until the object's status showed it.
    """

    accepted: float
    actor: float
    status_of_start: float
    status_of_end: float


class Watch:
    """When an object's conditions became true, as ``kubectl get -w`` saw them; UNIX seconds."""

    def __init__(self, server: ApiServer) -> None:
        kubectl = (str(program("kubectl")), f"--kubeconfig={server.kubeconfig}")
        line = (*kubectl, "get", "trainingjobs", "-n", NAMESPACE, "-w", "-o=json")
        self._process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        self.seen: dict[tuple[str, str], float] = {}
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        decoder, text = json.JSONDecoder(), ""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text += line
            if line != "}\n":
                continue
            found, end = decoder.raw_decode(text)
            text, now = text[end:].lstrip(), time.time()
            for each in found.get("status", {}).get("conditions", ()):
                if each["status"] == "True":
                    key = (found["metadata"]["name"], each["type"])
                    self.seen.setdefault(key, now)

    def end(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait()


@contextmanager
def operating(server: ApiServer, cluster: LocalCluster) -> Iterator[Child]:
    """An operator between the API server and the local cluster."""
    record = read_record(cluster.home)
    assert record is not None
    flags = (
        *("--control-plane", record.endpoints["grpc"], "--kubeconfig", str(server.kubeconfig)),
        *("--namespaces", NAMESPACE, "--cluster-objects", "no"),
        *("--lease-namespace", NAMESPACE, "--listen", "127.0.0.1:0"),
    )
    with serving("-m", "operators", *flags) as child:
        yield child


def one(server: ApiServer, cluster: LocalCluster, watch: Watch, name: str) -> Row:
    """Applies a job to the idle cluster, waits for its end, and deletes it."""
    wait = f"import time; time.sleep({RUNS_SECONDS})"
    described = json.dumps(command(name, cluster.store, sys.executable, "-c", wait))
    began = time.time()
    server.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=described)
    until(f"{name} is told to have succeeded", lambda: (name, "Succeeded") in watch.seen)
    (uid,) = (job.uid for job in cluster.client.list_jobs() if job.name == name)
    at = {
        event.kind: event.at.ToNanoseconds() / 1e9
        for event in reversed(cluster.client.list_events(uid))
    }
    server.kubectl("delete", "trainingjob", name, "-n", NAMESPACE)
    return Row(
        accepted=at["JobSubmitted"] - began,
        actor=at["UnitStarted"] - began,
        status_of_start=watch.seen[name, "Running"] - at["UnitStarted"],
        status_of_end=watch.seen[name, "Succeeded"] - at["UnitExited"],
    )


def show(rows: Sequence[Row]) -> None:
    """Half, 99 of 100, and the largest of each time."""
    print(f"{'':16} {'p50, s':>8} {'p99, s':>8} {'most, s':>8}")
    for name, values in figures(rows).items():
        p99 = statistics.quantiles(values, n=100, method="inclusive")[98]
        print(f"{name:16} {statistics.median(values):8.2f} {p99:8.2f} {max(values):8.2f}")


def figures(rows: Sequence[Row]) -> dict[str, list[float]]:
    """The rows by column."""
    return {name: [asdict(row)[name] for row in rows] for name in asdict(rows[0])}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--csv", action="store_true")
    given = parser.parse_args()
    print(machine(), flush=True)
    with kubernetes() as server, a_folder() as folder:
        cluster = LocalCluster.up(folder / "home", seed=0)
        try:
            with operating(server, cluster):
                watch = Watch(server)
                # The first takes what is only done once, such as reading modules from the disk.
                one(server, cluster, watch, "first")
                rows = []
                for number in range(given.jobs):
                    rows.append(one(server, cluster, watch, f"job-{number}"))
                    print(f"  {number + 1} of {given.jobs}", flush=True)
                watch.end()
        finally:
            cluster.down()
    if given.csv:
        writer = csv.DictWriter(sys.stdout, asdict(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, rows))
    else:
        show(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
