"""What every command shares: global options, the way to a client, errors to exit statuses."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import typer

from headrace.cli.exit_codes import CommandError, ExitCode
from headrace.cli.output import note
from headrace.client.context import Context, NoContextError, home_directory, load

if TYPE_CHECKING:
    from headrace.client.client import Client
    from headrace.client.custom_resources import CustomResources

P = ParamSpec("P")
R = TypeVar("R")

_BY_KIND = {
    "NotFound": ExitCode.NOT_FOUND,
    "Refused": ExitCode.REFUSED,
    "Unreachable": ExitCode.UNREACHABLE,
    "TimedOut": ExitCode.TIMED_OUT,
}


@dataclass(frozen=True, slots=True)
class KubernetesFlags:
    """Whether objects are written in Kubernetes, and how it is reached.

    Attributes:
        wanted: As kubectl would reach it.
        kubeconfig: A file; means ``wanted``.
        context: Of the kubeconfig; means ``wanted``.
    """

    wanted: bool = False
    kubeconfig: str = ""
    context: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """The global options of one invocation."""

    home: Path = field(default_factory=home_directory)
    flags: dict[str, str | bool] = field(default_factory=dict)
    kubernetes: KubernetesFlags = KubernetesFlags()

    def context(self) -> Context:
        """Where the control plane is.

        Raises:
            NoContextError: Nobody said.
        """
        return load(self.home, self.flags)

    def client(self, *, patience_seconds: float = 5.0) -> Client:
        """A client of that control plane."""
        from headrace.client.client import Client

        return Client(self.context(), patience_seconds=patience_seconds)

    @property
    def writes_custom_resources(self) -> bool:
        """Whether somebody asked for it: a variable or a file that lies about is not enough."""
        asked = self.kubernetes
        return bool(asked.wanted or asked.kubeconfig or asked.context)

    def custom_resources(self) -> CustomResources:
        """Custom resources of the cluster that the flags name.

        Raises:
            CallError: It cannot be told how to reach it.
        """
        from headrace.client.custom_resources import CustomResources, Kubeconfig

        return CustomResources(Kubeconfig(self.kubernetes.kubeconfig, self.kubernetes.context))


def refuse_force(force: bool) -> None:
    """Ends a command that would take over fields where there are none to take.

    Raises:
        CommandError: If so.
    """
    if force:
        raise CommandError(
            ExitCode.USAGE,
            "--force-conflicts is about fields of custom resources; wanted it with --kubernetes, "
            "--kubeconfig or --kube-context",
        )


def session_of(context: typer.Context) -> Session:
    """The session that the main callback made."""
    session = context.find_object(Session)
    return session if session is not None else Session()


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Turns what went wrong in a command into a sentence and an exit status."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            note("interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            # The reader went away, for example `head`. Python must not complain at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ExitCode.BROKEN_PIPE) from None
        except Exception as error:
            code = _exit_status(error)
            if code is None:
                raise
            note(f"headrace: {_sentence(error)}")
            raise typer.Exit(code) from None

    return run


def _sentence(error: Exception) -> str:
    """The error's words; of a file, its name and what is wrong with it, without numbers."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _exit_status(error: Exception) -> int | None:
    """The exit status for an error that was foreseen; None for a bug."""
    if isinstance(error, CommandError):
        return error.code
    if isinstance(error, NoContextError):
        return ExitCode.UNREACHABLE
    trouble = sys.modules.get("headrace.client.trouble")  # loaded only if a call was made
    if trouble is not None and isinstance(error, trouble.CallError):
        return _BY_KIND.get(str(error.kind), ExitCode.FAILED)
    if isinstance(error, OSError):
        return ExitCode.FAILED
    return None
