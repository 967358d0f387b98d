"""A running API server as tests use it: with kubectl, helm and the official client."""

import itertools
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from tests.kubernetes.certificates import Authority
from tests.kubernetes.programs import program
from tests.kubernetes.waiting import PATIENCE_SECONDS, until

_NOT_FOUND = 404


class CommandFailedError(Exception):
    """kubectl or helm ended with an error; says what was called and what it wrote.

    Attributes:
        returncode: With what it ended.
        stderr: All that it wrote there.
    """

    def __init__(self, command: list[str], ended: "subprocess.CompletedProcess[str]") -> None:
        called = " ".join(
            Path(word).name if not number else word for number, word in enumerate(command)
        )
        super().__init__(f"`{called}` ended with {ended.returncode}: {ended.stderr.strip()}")
        self.returncode = ended.returncode
        self.stderr = ended.stderr


class ApiServer:
    """One API server, as its administrator.

    Attributes:
        kubeconfig: A file for kubectl, helm and clients.
        folder: Where files that belong to it may be written.
    """

    def __init__(self, kubeconfig: Path, folder: Path, authority: Path | None = None) -> None:
        self.kubeconfig = kubeconfig
        self.folder = folder
        self._authority = authority
        self._numbers = itertools.count(1)
        self._client: client.ApiClient | None = None

    @property
    def server(self) -> str:
        """Its URL."""
        read = yaml.safe_load(self.kubeconfig.read_text(encoding="utf-8"))
        context = _named(read["contexts"], read["current-context"])["context"]
        return str(_named(read["clusters"], context["cluster"])["cluster"]["server"])

    @property
    def client(self) -> client.ApiClient:
        """The official client, made when first asked for; ``close`` closes it."""
        if self._client is None:
            self._client = config.new_client_from_config(str(self.kubeconfig))
        return self._client

    def close(self) -> None:
        """Closes the client."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Runs the real kubectl; what it wrote.

        Raises:
            CommandFailedError: If it ended with an error.
        """
        return self._command("kubectl", arguments, stdin)

    def helm(self, *arguments: str, stdin: str | None = None) -> str:
        """Runs the real helm, with folders of its own for what it keeps; what it wrote.

        Raises:
            CommandFailedError: If it ended with an error.
        """
        return self._command("helm", arguments, stdin)

    def kubeconfig_of(self, user: str, *groups: str) -> Path:
        """A kubeconfig of this user, whom RBAC knows by this name and these groups.

        Raises:
            LookupError: If the API server is not one of ours, so that we cannot sign for it.
        """
        if self._authority is None:
            raise LookupError(f"{self.server} does not trust certificates of these tests")
        file = self.folder / f"user-{os.getpid()}-{next(self._numbers)}.kubeconfig"
        return Authority(self._authority).kubeconfig(file, self.server, user, groups)

    def new_namespace(self, name: str) -> None:
        """Makes it and waits until pods could be made in it."""
        core = client.CoreV1Api(self.client)
        core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))
        until(f"{name} has a service account", lambda: self.has_default_account(name))

    def delete_namespace(self, name: str) -> None:
        """Has it deleted, and all that is in it; does not wait."""
        client.CoreV1Api(self.client).delete_namespace(name)

    def has_default_account(self, namespace: str) -> bool:
        """Whether pods could be made in it."""
        try:
            client.CoreV1Api(self.client).read_namespaced_service_account("default", namespace)
        except ApiException as error:
            if error.status == _NOT_FOUND:
                return False
            raise
        return True

    def _command(self, name: str, arguments: tuple[str, ...], stdin: str | None) -> str:
        own = self.folder / name
        settings = {
            "KUBECONFIG": str(self.kubeconfig),
            # Nothing of the user's own is read or written.
            "KUBECACHEDIR": str(own),
            "KUBERC": "off",
            **{
                f"HELM_{kind}_HOME": str(own / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")
            },
        }
        command = [str(program(name)), *arguments]
        ended = subprocess.run(
            command,
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            env={**os.environ, **settings},
            capture_output=True,
            check=False,
            text=True,
            timeout=PATIENCE_SECONDS * 2,
        )
        if ended.returncode:
            raise CommandFailedError(command, ended)
        return ended.stdout


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)
