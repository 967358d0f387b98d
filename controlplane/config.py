"""Flags and environment -> frozen settings, read once.

Every flag can be given as an environment variable: ``--database-url`` is
``HEADRACE_DATABASE_URL``. A flag wins.
"""

import argparse
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.api.addresses import CONTROL_PLANE

_DEFAULT_METRICS = "127.0.0.1:7461"


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of mutual TLS, and which identity has which role."""

    key: Path
    certificate: Path
    client_ca: Path
    roles: Path


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How one control plane runs.

    Attributes:
        listen: Host and port of the gRPC API; port 0 takes a free one.
        metrics_listen: Host and port of ``/metrics``; empty for none.
        database_url: The store.
        holder: Name that the lease is taken under; one that is started again takes over at once.
            Empty: host name and address that was bound.
        tls: Mutual TLS; None on loopback.
        insecure_listen: Whether to listen without TLS where others can reach it.
        dashboard_url: Ray's dashboard, for people.
        ready_file: Written when ready, beside the line on standard output; None for none.
        log_format: ``json`` or ``console``.
        log_level: Least severe level that is logged.
        checkpoint_seconds: Time between two checkpoints of the state.
        prune_seconds: Time between two prunings of the store.
        forecast_seconds: Time between two predictions of when jobs start and end, at least; 0 for
            none, as where a control plane is embedded.
    """

    listen: str
    metrics_listen: str
    database_url: str
    holder: str = ""
    tls: Tls | None = None
    insecure_listen: bool = False
    dashboard_url: str = ""
    ready_file: Path | None = None
    log_format: str = "json"
    log_level: str = "INFO"
    checkpoint_seconds: float = 60.0
    prune_seconds: float = 600.0
    forecast_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RestoreSettings:
    """What to restore, and where to.

    Attributes:
        source: The backup.
        database_url: An empty database.
    """

    source: Path
    database_url: str


def read_settings(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> ServeSettings | RestoreSettings:
    """Settings from the command line and the environment.

    Raises:
        SystemExit: They make no sense; argparse has said why.
    """
    environment = os.environ if environment is None else environment
    given = list(arguments)
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help")):
        given.insert(0, "serve")
    parser = argparse.ArgumentParser(
        prog="python -m controlplane", description="Headrace's control plane."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run the control plane (the default)")
    _add_serve_flags(serve, environment)
    restore = commands.add_parser("restore", help="fill an empty database from a backup")
    restore.add_argument("--from", dest="source", type=Path, required=True, metavar="FILE")
    _flag(restore, environment, "--database-url", required=True, help="an empty database")
    told = parser.parse_args(given)
    if told.command == "restore":
        return RestoreSettings(told.source, told.database_url)
    return _serve_settings(serve, told)


def _variable(flag: str) -> str:
    return "HEADRACE_" + flag.removeprefix("--").replace("-", "_").upper()


def _flag(
    parser: argparse.ArgumentParser,
    environment: Mapping[str, str],
    flag: str,
    default: str = "",
    *,
    required: bool = False,
    choices: Sequence[str] | None = None,
    help: str,  # noqa: A002 - argparse calls it so
) -> None:
    value = environment.get(_variable(flag), default)
    if choices is not None and value not in choices:
        parser.error(f"{_variable(flag)}: wanted one of {', '.join(choices)}, got {value!r}")
    parser.add_argument(
        flag,
        default=value,
        required=required and not value,
        choices=choices,
        help=f"{help} [{_variable(flag)}]",
    )


def _add_serve_flags(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    def flag(name: str, default: str, text: str, choices: Sequence[str] | None = None) -> None:
        _flag(parser, environment, name, default, choices=choices, help=text)

    flag("--listen", CONTROL_PLANE, "host:port of the gRPC API; port 0 takes a free one")
    flag("--metrics-listen", _DEFAULT_METRICS, "host:port of /metrics, or none")
    flag("--database-url", "sqlite:///headrace.db", "the store: sqlite:///FILE or postgresql://...")
    flag("--holder", "", "name for the lease; default: host name and address")
    flag("--tls-key", "", "PEM file: this server's key")
    flag("--tls-certificate", "", "PEM file: this server's certificate")
    flag("--tls-client-ca", "", "PEM file: who signs the callers' certificates")
    flag("--roles", "", "YAML file: identities and their roles")
    flag("--dashboard-url", "", "Ray's dashboard, shown to people")
    flag("--ready-file", "", "file to write when ready")
    flag("--log-format", "json", "how to log", ("json", "console"))
    flag("--log-level", "INFO", "least severe level", ("DEBUG", "INFO", "WARNING", "ERROR"))
    flag("--checkpoint-seconds", "60", "time between two checkpoints of the state")
    flag("--prune-seconds", "600", "time between two prunings of the store")
    flag(
        "--forecast-seconds",
        "15",
        "time between two predictions of when jobs start and end, or none",
    )
    insecure = environment.get(_variable("--insecure-listen"), "").lower() in ("1", "true", "yes")
    parser.add_argument(
        "--insecure-listen",
        action="store_true",
        default=insecure,
        help="listen without TLS where other machines can reach it: anyone is admin, unless the "
        "API has TLS and only /metrics does not",
    )


def _serve_settings(parser: argparse.ArgumentParser, told: argparse.Namespace) -> ServeSettings:
    files = {
        "--tls-key": told.tls_key,
        "--tls-certificate": told.tls_certificate,
        "--tls-client-ca": told.tls_client_ca,
        "--roles": told.roles,
    }
    missing = [flag for flag, value in files.items() if not value]
    if missing and len(missing) < len(files):
        parser.error(f"TLS needs all of {', '.join(files)}; {', '.join(missing)} is missing")
    metrics = "" if told.metrics_listen in ("", "none") else told.metrics_listen
    for name, address in (("--listen", told.listen), ("--metrics-listen", metrics)):
        host, _, port = address.rpartition(":")
        if address and not address.startswith("unix:") and not (host and port.isdigit()):
            parser.error(f"{name}: wanted host:port, got {address!r}")
    return ServeSettings(
        listen=told.listen,
        metrics_listen=metrics,
        database_url=told.database_url,
        holder=told.holder,
        tls=None if missing else Tls(*(Path(value) for value in files.values())),
        insecure_listen=told.insecure_listen,
        dashboard_url=told.dashboard_url,
        ready_file=Path(told.ready_file) if told.ready_file else None,
        log_format=told.log_format,
        log_level=told.log_level,
        checkpoint_seconds=_seconds(parser, "--checkpoint-seconds", told.checkpoint_seconds),
        prune_seconds=_seconds(parser, "--prune-seconds", told.prune_seconds),
        forecast_seconds=0.0
        if told.forecast_seconds == "none"
        else _seconds(parser, "--forecast-seconds", told.forecast_seconds),
    )


def _seconds(parser: argparse.ArgumentParser, flag: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        parser.error(f"{flag}: wanted seconds above 0, got {text!r}")
    return value


def host_name() -> str:
    """This machine's name."""
    return socket.gethostname()
