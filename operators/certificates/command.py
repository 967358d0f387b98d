"""The two commands: ``keep`` for an installation, ``fetch`` for an agent's node."""

import argparse
import datetime
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
import urllib3.exceptions
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from controlplane.logs import set_up_logs
from operators.certificates.fetching import DeniedError, Fetcher
from operators.certificates.keeper import CannotKeepError, Keeper
from operators.certificates.wanted import WantedFileError, read_wanted

_LOOK_SECONDS = 60
_TRY_AGAIN_SECONDS = 2.0
_PATIENCE_SECONDS = 120.0
OK, REFUSED = 0, 2

log = structlog.get_logger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the flags and does what they say, until it is ended; returns the exit code."""
    given = parser().parse_args(arguments)
    # As pid 1 of a container it would not even notice, and be killed when the grace is over.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(OK))
    set_up_logs()
    try:
        api = _api(given.kubeconfig)
        work: Callable[[], None] = (
            _keeping(api, given) if given.command == "keep" else _fetching(api, given)
        )
    except (config.ConfigException, WantedFileError) as error:
        sys.stderr.write(f"certificates: {error}\n")
        return REFUSED
    return _again_and_again(work, once=given.once)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m operators.certificates", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True)
    keep = commands.add_parser("keep", help="make, renew and sign what an installation wants")
    keep.add_argument("--wanted", type=Path, required=True, metavar="FILE", help="what is wanted")
    keep.add_argument("--namespace", required=True, help="where its Secrets are")
    keep.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    fetch = commands.add_parser("fetch", help="keep the certificate of this pod's node in a folder")
    fetch.add_argument("--folder", type=Path, required=True)
    fetch.add_argument("--signer", required=True, help="signerName of the request")
    fetch.add_argument("--identity", required=True, metavar="URI", help="of this node's agent")
    for command in (keep, fetch):
        command.add_argument("--kubeconfig", default="", help="default: the pod's own account")
        command.add_argument("--once", action="store_true", help="end when all is there")
    return made


def _api(kubeconfig: str) -> client.ApiClient:
    if kubeconfig:
        made: client.ApiClient = config.new_client_from_config(kubeconfig)
        return made
    config.load_incluster_config()
    return client.ApiClient()


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _keeping(api: client.ApiClient, given: argparse.Namespace) -> Callable[[], None]:
    wanted = read_wanted(given.wanted)
    labels = dict(text.split("=", 1) for text in given.label)
    keeper = Keeper(api, given.namespace, wanted, _now, labels)

    def work() -> None:
        keeper.look()
        if given.once:
            return
        if wanted.nodes is None:
            time.sleep(_LOOK_SECONDS)
        else:
            keeper.wait(_LOOK_SECONDS)

    return work


def _fetching(api: client.ApiClient, given: argparse.Namespace) -> Callable[[], None]:
    os.umask(0o077)
    fetcher = Fetcher(api, given.folder, given.signer, given.identity, _now)

    def work() -> None:
        if fetcher.due():
            fetcher.fetch(_PATIENCE_SECONDS)
        if not given.once:
            time.sleep(_LOOK_SECONDS)

    return work


def _again_and_again(work: Callable[[], None], *, once: bool) -> int:
    told = ""
    while True:
        try:
            work()
        except (ApiException, CannotKeepError, DeniedError, OSError) as error:
            why = (
                f"{error.status} {error.reason}" if isinstance(error, ApiException) else str(error)
            )
        except urllib3.exceptions.HTTPError as error:
            why = f"the API server does not answer: {error}"
        else:
            told = ""
            if once:
                return OK
            continue
        if why != told:
            log.warning("not done yet", why=why)
            told = why
        time.sleep(_TRY_AGAIN_SECONDS)
