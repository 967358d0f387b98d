"""What an agent is told at its start: flags and environment, read once."""

import argparse
import os
import platform
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.control_plane_client import NodeDescription, Tls
from agent.gpu_probe import Wanted
from agent.launching import LaunchSettings
from agent.ray_bridge import RayAddress
from agent.units import UnitSettings
from headrace.api.addresses import CONTROL_PLANE, is_loopback
from headrace.api.racks import RACK_LABEL
from headrace.api.replicas import BY_NAME

_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


class SettingsError(Exception):
    """The flags do not make sense; the message says which, and what would."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """All settings of one agent.

    Attributes:
        command: ``run``, or ``end-units``.
        control_plane: host:port of the control plane.
        description: How the node introduces itself.
        units: How it treats its launch units.
        ray: How it joins Ray.
        accelerators: What it offers.
        tls: Certificates, or None on a loopback.
        end_units_on_exit: Whether SIGTERM ends the units too.
        wait_for_predecessor: Whether it waits, for as long as it takes, until the node's present
            agent has ended.
    """

    command: str
    control_plane: str
    description: NodeDescription
    units: UnitSettings
    ray: RayAddress
    accelerators: Wanted
    tls: Tls | None
    end_units_on_exit: bool
    wait_for_predecessor: bool


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m agent", description="Runs one node's share of the cluster's jobs."
    )
    add = made.add_argument
    add(
        "command",
        nargs="?",
        choices=["run", "end-units"],
        default="run",
        help="run the agent (default), or end every unit that an agent left running and exit",
    )
    add("--node", default=platform.node(), help="name of this node (default: host name)")
    add("--control-plane", default=CONTROL_PLANE, metavar="HOST:PORT")
    add("--ray-address", required=True, metavar="HOST:PORT", help="Ray's head")
    add("--ray-node-ip", default="", help="address that this machine's raylet was started with")
    add("--ray-auth-mode", default=os.environ.get("RAY_AUTH_MODE", "disabled"))
    add("--state-dir", type=Path, required=True, help="journal, control folders and output")
    add(
        "--accelerators",
        default="auto",
        help="auto (the GPUs that CUDA_VISIBLE_DEVICES leaves, else CPU slots), cpu, a number of "
        "those GPUs, or GPU UUIDs",
    )
    add("--slots", type=int, default=0, help="CPU slots where there are no GPUs (0: one a core)")
    add("--cpu-cores", default="", help="cores to share out, e.g. 0,2-5 (default: all)")
    add(
        "--advertise-address",
        default="",
        help="where other nodes reach this one (default: the address from which it reaches the "
        "control plane)",
    )
    add("--label", action="append", default=[], metavar="KEY=VALUE")
    add("--rack", default="", help=f"rack that this node is in; its label {RACK_LABEL}")
    add("--taint", action="append", default=[], metavar="KEY[=VALUE]")
    add("--run-as-uid", type=int, default=-1, help="user that ranks run as (needs root)")
    add("--launch-module", default="headrace.workloads.launch", help=argparse.SUPPRESS)
    add("--end-grace-seconds", type=float, default=10.0, help="between SIGTERM and SIGKILL")
    add("--ray-patience-seconds", type=float, default=60.0, help="how long a start waits for Ray")
    add(
        "--pod-patience-seconds",
        type=float,
        default=600.0,
        help="how long a start waits for a pod of the job's own",
    )
    add("--end-units-on-exit", action="store_true", help="SIGTERM ends the units too")
    add(
        "--wait-for-predecessor",
        action="store_true",
        help="where this node has an agent: take over when that one ends, in place of refusing",
    )
    add("--tls-ca", type=Path)
    add("--tls-certificate", type=Path)
    add("--tls-key", type=Path)
    add("--insecure", action="store_true", help="no TLS although the address is not a loopback")
    return made


def address_towards(address: str) -> str:
    """This machine's address on the way to ``host:port``. Nothing is sent.

    Raises:
        OSError: There is no way.
    """
    host, _, port = address.removeprefix(BY_NAME).rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    # IPv4 before IPv6: by its address the ranks choose their interface.
    family, kind, protocol, _, target = min(found, key=lambda each: each[0] != socket.AF_INET)
    with socket.socket(family, kind, protocol) as way:
        way.connect(target)
        return str(way.getsockname()[0])


def parse(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    towards: Callable[[str], str] = address_towards,
) -> AgentSettings:
    """The settings that flags and environment make.

    Args:
        arguments: The flags.
        environment: The environment.
        towards: Says from which address the control plane is reached.

    Raises:
        SettingsError: They contradict each other, or a file cannot be read.
    """
    given = parser().parse_args(arguments)
    if not given.node or "/" in given.node or ":" in given.node:
        raise SettingsError(f"--node {given.node!r}: a node's name has no '/' and no ':'")
    tls = _tls(given)
    advertised = given.advertise_address or _advertised(given, towards)
    # Ray and the ranks have working folders of their own.
    state = given.state_dir.absolute() / given.node
    return AgentSettings(
        command=given.command,
        control_plane=given.control_plane,
        description=NodeDescription(
            name=given.node,
            address=advertised,
            labels=_labels(given.label, given.rack),
            taints=tuple(_pair(text, "--taint", needs_value=False) for text in given.taint),
        ),
        units=UnitSettings(
            node=given.node,
            root=state,
            launch=LaunchSettings(
                node=given.node,
                module=given.launch_module,
                advertise_address=advertised,
                secrets_folder=environment.get("HEADRACE_SECRETS_DIR", ""),
                run_as_uid=given.run_as_uid,
            ),
            end_grace_seconds=given.end_grace_seconds,
            ray_patience_seconds=given.ray_patience_seconds,
            pod_patience_seconds=given.pod_patience_seconds,
        ),
        ray=RayAddress(given.ray_address, given.ray_node_ip, given.ray_auth_mode),
        accelerators=Wanted(given.accelerators, given.slots, _cores(given.cpu_cores)),
        tls=tls,
        end_units_on_exit=given.end_units_on_exit,
        wait_for_predecessor=given.wait_for_predecessor,
    )


def _advertised(given: argparse.Namespace, towards: Callable[[str], str]) -> str:
    """Where other nodes find this one, if nobody says so."""
    control_plane = given.control_plane
    if given.command != "run" or is_loopback(control_plane):
        return "127.0.0.1"
    try:
        found = towards(control_plane)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"--control-plane {control_plane}: no way there is known ({error}), so neither is the "
            "address at which other nodes reach this one; give --advertise-address"
        ) from None
    if is_loopback(f"[{found}]:0" if ":" in found else f"{found}:0"):
        # The ranks of two nodes would each look for the others at home.
        raise SettingsError(
            f"--control-plane {control_plane} is reached from {found}, where no other node finds "
            "this one; give --advertise-address"
        )
    return found


def _tls(given: argparse.Namespace) -> Tls | None:
    files = (given.tls_ca, given.tls_certificate, given.tls_key)
    if not any(files):
        if given.command == "run" and not is_loopback(given.control_plane) and not given.insecure:
            raise SettingsError(
                f"--control-plane {given.control_plane} is not a loopback address, so it needs "
                "--tls-ca, --tls-certificate and --tls-key; --insecure goes without"
            )
        return None
    if not all(files):
        raise SettingsError("--tls-ca, --tls-certificate and --tls-key belong together")
    tls = Tls(given.tls_ca, given.tls_certificate, given.tls_key)
    try:
        tls.credentials()
    except OSError as error:
        raise SettingsError(f"{error.filename} cannot be read: {error.strerror}") from None
    return tls


def _labels(told: Sequence[str], rack: str) -> dict[str, str]:
    labels = dict(_pair(text, "--label", needs_value=True) for text in told)
    if not rack:
        return labels
    if not _LABEL_VALUE.fullmatch(rack):
        raise SettingsError(
            f"--rack {rack!r}: wanted 1 to 63 letters, digits, '-', '_' and '.', beginning and "
            "ending with a letter or digit"
        )
    if labels.get(RACK_LABEL, rack) != rack:
        raise SettingsError(
            f"--rack {rack} and --label {RACK_LABEL}={labels[RACK_LABEL]} contradict each other; "
            "give one of them"
        )
    return labels | {RACK_LABEL: rack}


def _pair(text: str, flag: str, *, needs_value: bool) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or (needs_value and not equals):
        raise SettingsError(f"{flag} {text!r}: wanted KEY=VALUE")
    return key, value


def _cores(text: str) -> tuple[int, ...]:
    cores: set[int] = set()
    try:
        for part in filter(None, text.split(",")):
            low, _, high = part.partition("-")
            cores.update(range(int(low), int(high or low) + 1))
    except ValueError:
        raise SettingsError(f"--cpu-cores {text!r}: wanted numbers such as 0,2-5") from None
    return tuple(sorted(cores))
