"""``headrace predict``: when jobs would start and end, how long they take, on what, and how surely.

This side reads manifests, fetches the snapshot and shows the answer. What plays it is the
simulator, in a process of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.api.generated import common_pb2
from headrace.cli import estimates
from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.output import Format, document, field, folded, say
from headrace.cli.session import Session
from headrace.cli.tables import age
from headrace.cli.what_if import manifests, need_simulator, played, snapshot_file

_MODULE = "simulator.forecasting.predicting"


def predict(session: Session, files: Sequence[str], snapshot: str, output: Format) -> None:
    """Asks, and shows the answer.

    Raises:
        CommandError: There is no job in the files, or the simulator is not there.
    """
    need_simulator()
    jobs = manifests(session, files)
    if not jobs:
        raise CommandError(ExitCode.USAGE, f"wanted a job, found none in {', '.join(files)}")
    with snapshot_file(session, snapshot) as path:
        told = played(_MODULE, {"snapshot": str(path.absolute()), "manifests": jobs})
    if output in (Format.JSON, Format.YAML):
        document(told, output)
        return
    for number, each in enumerate(told["jobs"]):
        if output is Format.NAME:
            say(f"job/{each['job'].partition('/')[2]}")
            continue
        if number:
            say()
        show(each, told["at"], told["plays"])


def show(job: Mapping[str, Any], at: float, plays: int) -> None:
    """Prints what is predicted of one job.

    Args:
        job: As the simulator tells it.
        at: Instant of the cluster, seconds since 1970.
        plays: How often it was played.
    """
    field("Name", job["job"])
    if "end" not in job:
        folded("Ends", _why_not(job, plays))
        return
    folded("Starts", _told(job, "start", "startOutcomesMissing", at, "starts"))
    folded("Ends", _told(job, "end", "outcomesMissing", at, "done"))
    length = job["length"]
    shortest, longest = age(length["low"]), age(length["high"])
    field("Takes", shortest if shortest == longest else f"{shortest} to {longest}")
    folded("On", _way(job["first"], job["type"], plays))
    if job["last"]["plan"] != job["first"]["plan"]:
        folded("In the end", _way(job["last"], job["type"], plays))
    if job["steps"]:
        folded("Step times", job["steps"])


def _told(job: Mapping[str, Any], what: str, missing: str, at: float, verb: str) -> str:
    estimate = common_pb2.Estimate(
        low=job[what]["low"],
        high=job[what]["high"],
        coverage=job["coverage"],
        outcomes_missing=job[missing],
    )
    estimate.made_at.seconds = int(at)
    return estimates.told(estimate, at, verb).partition(", predicted")[0]


def _way(way: Mapping[str, Any], kind: str, plays: int) -> str:
    return (
        f"{way['accelerators']} {kind or 'accelerators'} under {way['plan']}, in "
        f"{100 * way['share']:.0f} % of {plays} plays"
    )


def _why_not(job: Mapping[str, Any], plays: int) -> str:
    waits = job["outcomes"].get("Waits", 0)
    if not job["outcomes"]:
        return f"nobody can say: {job['steps'] or 'nothing is known of it'}"
    if waits * 2 > plays:
        return f"nobody can say: in {waits} of {plays} plays it never gets accelerators"
    return f"nobody can say: it failed or went on without end in most of {plays} plays"
