"""Flags and environment -> frozen settings, read once.

Every flag can be given as an environment variable: ``--lease-namespace`` is
``HEADRACE_LEASE_NAMESPACE``. A flag wins.
"""

import argparse
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.api.addresses import is_loopback
from operators.control_plane import TlsFiles
from operators.nodes.node import ANY_NODE, Pools, read_pools
from operators.runtime.leadership import LeaseSettings

_LISTEN = "127.0.0.1:7465"
_LEASE_NAME = "headrace-operator"
_LEASE_SECONDS = 12
_LEASE_SECONDS_MOST = 15
_WORKERS = 16
_GPU = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True)
class Settings:
    """How one replica of the operator runs.

    Attributes:
        control_plane: ``host:port`` of its gRPC API.
        tls: Mutual TLS with it; None for none.
        namespaces: Whose objects are looked after; empty for all.
        cluster_objects: Whether objects without a namespace are looked after too.
        nodes: Whether what Kubernetes keeps off its nodes is kept off them here.
        pools: Which nodes agents run on.
        kueue_resource: What Kueue calls an accelerator; empty where Kueue is not asked.
        kubeconfig: How to reach the API server; empty for the pod's service account.
        lease: By which replicas agree on a leader.
        listen: ``host:port`` of health and metrics; port 0 takes a free one.
        workers: Objects that are looked at at the same time.
        log_format: ``json`` or ``console``.
        log_level: Least severe level that is logged.
    """

    control_plane: str
    tls: TlsFiles | None
    namespaces: tuple[str, ...]
    cluster_objects: bool
    kubeconfig: str
    lease: LeaseSettings
    nodes: bool = True
    pools: Pools = ANY_NODE
    kueue_resource: str = ""
    listen: str = _LISTEN
    workers: int = _WORKERS
    log_format: str = "json"
    log_level: str = "INFO"


class _Flags:
    """A parser whose flags have variables."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.parser = argparse.ArgumentParser(
            prog="python -m operators", description="Headrace's operator for Kubernetes."
        )

    def text(
        self, flag: str, default: str, help_: str, choices: Sequence[str] | None = None
    ) -> None:
        """A flag with a value."""
        variable = "HEADRACE_" + flag.removeprefix("--").replace("-", "_").upper()
        value = self._environment.get(variable, default)
        if choices is not None and value not in choices:
            self.parser.error(f"{variable}: wanted one of {', '.join(choices)}, got {value!r}")
        self.parser.add_argument(flag, default=value, choices=choices, help=f"{help_} [{variable}]")


def read_settings(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> Settings:
    """Settings from the command line and the environment.

    Raises:
        SystemExit: They make no sense; argparse has said why.
    """
    flags = _Flags(os.environ if environment is None else environment)
    flags.text("--control-plane", "", "host:port of the control plane's gRPC API")
    flags.text("--tls-ca", "", "PEM file: who signed the control plane's certificate")
    flags.text("--tls-certificate", "", "PEM file: the operator's certificate")
    flags.text("--tls-key", "", "PEM file: that certificate's key")
    flags.text("--tls-server-name", "", "name in the control plane's certificate, if not its host")
    flags.text("--insecure", "no", "speak without TLS to another machine", ("yes", "no"))
    flags.text("--namespaces", "all", "whose objects are looked after: all, or names with commas")
    flags.text("--cluster-objects", "yes", "look after Queue and ClusterPolicy too", ("yes", "no"))
    flags.text("--nodes", "yes", "respect cordons and taints of nodes", ("yes", "no"))
    flags.text("--node-pools", "", "JSON array: nodeSelector and tolerations of agents' pools")
    flags.text("--kueue", "yes", "wait for Kueue where jobs name a queue of it", ("yes", "no"))
    flags.text("--kueue-resource", _GPU, "what Kueue calls an accelerator")
    flags.text("--kubeconfig", "", "how to reach the API server; default: the pod's account")
    flags.text("--lease-namespace", "", "where replicas agree on a leader")
    flags.text("--lease-name", _LEASE_NAME, "name of the Lease")
    flags.text("--lease-seconds", str(_LEASE_SECONDS), "when a silent leader may be replaced")
    flags.text("--identity", "", "name of this replica; default: the host's name")
    flags.text("--listen", _LISTEN, "host:port of /healthz, /readyz and /metrics")
    flags.text("--workers", str(_WORKERS), "objects that are looked at at the same time")
    flags.text("--log-format", "json", "how to log", ("json", "console"))
    flags.text("--log-level", "INFO", "least severe level", ("DEBUG", "INFO", "WARNING", "ERROR"))
    return _settings(flags.parser, flags.parser.parse_args(arguments))


def _settings(parser: argparse.ArgumentParser, told: argparse.Namespace) -> Settings:
    for flag, value in (
        ("--control-plane", told.control_plane),
        ("--lease-namespace", told.lease_namespace),
    ):
        if not value:
            parser.error(f"wanted {flag}, got none")
    for flag, address in (("--control-plane", told.control_plane), ("--listen", told.listen)):
        host, _, port = address.rpartition(":")
        if not (host and port.isdigit()):
            parser.error(f"{flag}: wanted host:port, got {address!r}")
    tls = _tls(parser, told)
    if tls is None and told.insecure == "no" and not is_loopback(told.control_plane):
        parser.error(
            f"{told.control_plane} is on another machine and there is no TLS, so anyone could "
            "answer in its place; give --tls-ca, --tls-certificate and --tls-key, or insist with "
            "--insecure yes"
        )
    if told.kueue == "yes" and not told.kueue_resource:
        parser.error("--kueue-resource: wanted the name of a resource, such as nvidia.com/gpu")
    names = tuple(filter(None, (each.strip() for each in told.namespaces.split(","))))
    if not names or ("all" in names and len(names) > 1):
        parser.error(f"--namespaces: wanted all, or names with commas, got {told.namespaces!r}")
    try:
        pools = read_pools(told.node_pools)
    except ValueError as error:
        parser.error(f"--node-pools: {error}")
    return Settings(
        control_plane=told.control_plane,
        tls=tls,
        namespaces=() if names == ("all",) else names,
        cluster_objects=told.cluster_objects == "yes",
        nodes=told.nodes == "yes",
        pools=pools,
        kueue_resource=told.kueue_resource if told.kueue == "yes" else "",
        kubeconfig=told.kubeconfig,
        lease=LeaseSettings(
            told.lease_namespace,
            told.lease_name,
            told.identity or socket.gethostname(),
            _whole(parser, "--lease-seconds", told.lease_seconds, 2, _LEASE_SECONDS_MOST),
        ),
        listen=told.listen,
        workers=_whole(parser, "--workers", told.workers, 1, 256),
        log_format=told.log_format,
        log_level=told.log_level,
    )


def _tls(parser: argparse.ArgumentParser, told: argparse.Namespace) -> TlsFiles | None:
    files = {
        "--tls-ca": told.tls_ca,
        "--tls-certificate": told.tls_certificate,
        "--tls-key": told.tls_key,
    }
    missing = [flag for flag, value in files.items() if not value]
    if missing and len(missing) < len(files):
        parser.error(f"TLS needs all of {', '.join(files)}; {', '.join(missing)} is missing")
    if missing:
        return None
    authority, certificate, key = (Path(value) for value in files.values())
    return TlsFiles(authority, certificate, key, told.tls_server_name)


def _whole(parser: argparse.ArgumentParser, flag: str, text: str, least: int, most: int) -> int:
    if not text.isdigit() or not least <= int(text) <= most:
        parser.error(f"{flag}: wanted a whole number of {least} to {most}, got {text!r}")
    return int(text)
