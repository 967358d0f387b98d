"""An agent's side: asks for the certificate of its node, and again before it ends."""

import base64
import datetime
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from operators.certificates.authority import UnusableError, read_renewal, request

_ASK_SECONDS = 1.0
_NOT_FOUND = 404
_LIFETIME_SECONDS_MIN = 600  # the API server's own least

log = structlog.get_logger(__name__)


class DeniedError(Exception):
    """The request was refused; the message says why."""


class Fetcher:
    """Keeps one node's certificate in a folder: ``tls.crt`` and ``tls.key``.

    The two belong together: each pair lies in a folder of its own, and a link, which is replaced
    in one step, names the present one, as a kubelet does it with Secrets.
    """

    def __init__(
        self,
        api: client.ApiClient,
        folder: Path,
        signer: str,
        identity: str,
        now: Callable[[], datetime.datetime],
        lifetime: datetime.timedelta | None = None,
    ) -> None:
        self._requests = client.CertificatesV1Api(api)
        self._folder = folder
        self._signer = signer
        self._identity = identity
        self._now = now
        self._lifetime = lifetime

    def due(self) -> bool:
        """Whether it is time to ask."""
        try:
            return self._now() >= read_renewal((self._folder / "tls.crt").read_bytes())
        except (OSError, UnusableError):
            return True

    def fetch(self, patience_seconds: float) -> None:
        """Asks, waits for the answer, and puts it into the folder.

        Raises:
            DeniedError: We shall not have one, or nobody answered.
            ApiException: The API server did not take the request.
        """
        key, asked = request(self._identity)
        spec: dict[str, Any] = {
            "request": base64.b64encode(asked).decode(),
            "signer_name": self._signer,
            "usages": ["client auth", "digital signature"],
        }
        if self._lifetime is not None:
            least = max(_LIFETIME_SECONDS_MIN, int(self._lifetime.total_seconds()))
            spec["expiration_seconds"] = least
        made: Any = self._requests.create_certificate_signing_request(
            client.V1CertificateSigningRequest(
                metadata=client.V1ObjectMeta(generate_name="headrace-node-"),
                spec=client.V1CertificateSigningRequestSpec(**spec),
            )
        )
        certificate = self._answer(made.metadata.name, patience_seconds)
        self._store(key, certificate)
        log.info("a certificate was fetched", identity=self._identity, request=made.metadata.name)

    def _answer(self, name: str, patience_seconds: float) -> bytes:
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline:
            try:
                found: Any = self._requests.read_certificate_signing_request(name)
            except ApiException as error:
                if error.status == _NOT_FOUND:
                    raise DeniedError(f"request {name} was removed before it was signed") from None
                raise
            for condition in found.status.conditions or ():
                if condition.type in ("Denied", "Failed"):
                    raise DeniedError(f"request {name}: {condition.message}")
            if found.status.certificate:
                return base64.b64decode(found.status.certificate)
            time.sleep(_ASK_SECONDS)
        raise DeniedError(
            f"nobody signed request {name} within {patience_seconds:.0f} s; look at the log of "
            f"the certificates' Deployment, which signs for {self._signer}"
        )

    def _store(self, key: bytes, certificate: bytes) -> None:
        pair = self._folder / f"pair-{self._now():%Y%m%dT%H%M%S%f}"
        pair.mkdir(mode=0o700)
        for name, content in (("tls.crt", certificate), ("tls.key", key)):
            file = os.open(pair / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(file, "wb") as stream:
                stream.write(content)
        present = self._folder / "present"
        before = present.readlink() if present.is_symlink() else None
        fresh = self._folder / "present.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(pair.name)
        fresh.replace(present)
        for name in ("tls.crt", "tls.key"):
            link = self._folder / name
            if not link.is_symlink():
                link.symlink_to(Path("present") / name)
        if before is not None:
            for file_before in (self._folder / before).iterdir():
                file_before.unlink()
            (self._folder / before).rmdir()
