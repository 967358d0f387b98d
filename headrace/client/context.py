"""Where the control plane is, and how to speak to it. Without grpc, so it loads fast."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from headrace.api.addresses import PORT_MAX, has_bad_port, is_loopback

HOME_VARIABLE = "HEADRACE_HOME"
SERVER_VARIABLE = "HEADRACE_SERVER"
FILE = "context.json"


class NoContextError(Exception):
    """Nobody said where the control plane is, or what was said cannot be used."""


@dataclass(frozen=True, slots=True)
class Context:
    """One control plane.

    Attributes:
        server: ``host:port`` of its gRPC service.
        local: Whether ``headrace up`` started it on this machine, for this home.
        ca_file: Certificate authority that signed its certificate; empty without TLS.
        certificate_file: This client's certificate, for mTLS.
        key_file: The certificate's key.
        server_name: Name that the server's certificate must carry; empty for the host's.
        insecure: Speak without TLS to a server that is not on this machine.
    """

    server: str
    local: bool = False
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    server_name: str = ""
    insecure: bool = False


def home_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of this user's Headrace: the local cluster's state, and the context."""
    chosen = environment.get(HOME_VARIABLE, "")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".headrace"


def load(
    home: Path, flags: Mapping[str, str | bool], environment: Mapping[str, str] = os.environ
) -> Context:
    """The context: flags first, then the environment, then the home's file.

    Args:
        home: The home directory.
        flags: Fields of ``Context`` given on the command line; empty ones do not count.
        environment: The process's environment.

    Raises:
        NoContextError: There is no server to be found, or TLS is asked for by halves.
    """
    given = {name: value for name, value in flags.items() if value}
    server = given.get("server") or environment.get(SERVER_VARIABLE, "")
    stored = read(home)
    if server and (stored is None or stored.server != server):
        # TLS files and `local` belong to the stored server, not to another one.
        context = Context(str(server))
    elif stored is not None:
        context = stored
    else:
        raise NoContextError(
            f"no control plane is known: wanted --server, ${SERVER_VARIABLE} or {home / FILE}; "
            "`headrace up` starts a local cluster and writes that file"
        )
    context = replace(context, **{name: value for name, value in given.items() if name != "server"})  # type: ignore[arg-type]
    _check(context)
    return context


def read(home: Path) -> Context | None:
    """The home's context, if there is one.

    Raises:
        NoContextError: The file is there and cannot be used.
    """
    path = home / FILE
    try:
        return Context(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise NoContextError(f"{path} cannot be used as a context: {error}") from error


def write(home: Path, context: Context) -> None:
    """Makes ``context`` the home's own, in one step, readable by its user only."""
    home.mkdir(parents=True, exist_ok=True)
    scratch = home / f"{FILE}.{os.getpid()}"
    scratch.touch(mode=0o600)
    scratch.write_text(json.dumps(asdict(context), indent=2) + "\n", encoding="utf-8")
    scratch.replace(home / FILE)


def forget(home: Path) -> None:
    """Removes a context that pointed to the local cluster; another one stays."""
    stored = read(home)
    if stored is not None and stored.local:
        (home / FILE).unlink(missing_ok=True)


def _check(context: Context) -> None:
    if has_bad_port(context.server):
        raise NoContextError(
            f"wanted the control plane as host:port, with a port from 1 to {PORT_MAX}, got "
            f"{context.server}"
        )
    if bool(context.certificate_file) != bool(context.key_file):
        raise NoContextError("a client certificate needs both --tls-cert and --tls-key")
    if context.certificate_file and not context.ca_file:
        raise NoContextError("a client certificate needs --tls-ca, the server's authority, too")
    if not context.ca_file and not context.insecure and not is_loopback(context.server):
        raise NoContextError(
            f"{context.server} is not on this machine and there is no TLS: wanted --tls-ca FILE "
            "(and --tls-cert, --tls-key), or --insecure if the network in between is yours alone"
        )
