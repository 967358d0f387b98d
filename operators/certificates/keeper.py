"""Makes what is wanted true in the cluster, again and again; what is there is not made twice."""

import base64
import datetime
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from kubernetes import client, watch
from kubernetes.client.exceptions import ApiException

from operators.certificates.authority import Authority, Pair, UnusableError, found_authority
from operators.certificates.node_requests import Granted, NodeRequest, Refused, judge
from operators.certificates.wanted import Wanted, WantedCertificate, WantedToken

MANAGED_BY = "app.kubernetes.io/managed-by"
OURS = "headrace-certificates"
CERTIFICATE, KEY, AUTHORITY = "tls.crt", "tls.key", "ca.crt"
_TLS = "kubernetes.io/tls"
_NOT_FOUND, _CONFLICT = 404, 409
_WARN_BEFORE = datetime.timedelta(days=90)

log = structlog.get_logger(__name__)


class CannotKeepError(Exception):
    """Something in the cluster is in the way; the message says what, and what would help."""


class Keeper:
    """Looks after the certificates of one installation.

    Everything it knows is in the cluster: killed at any moment, the next one goes on. If two work
    at once, who comes second is told so by the API server and looks again.
    """

    def __init__(
        self,
        api: client.ApiClient,
        namespace: str,
        wanted: Wanted,
        now: Callable[[], datetime.datetime],
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._core = client.CoreV1Api(api)
        self._requests = client.CertificatesV1Api(api)
        self._namespace = namespace
        self._wanted = wanted
        self._now = now
        self._labels = {**(labels or {}), MANAGED_BY: OURS}
        self._lifetime = datetime.timedelta(hours=wanted.lifetime_hours)

    def look(self) -> None:
        """Makes what is missing, and renews what is due.

        Raises:
            CannotKeepError: Somebody else's object is in the way, or the authority is unusable.
            ApiException: The API server did not do it.
        """
        for token in self._wanted.tokens:
            self._keep_token(token)
        if self._wanted.authority is None:
            return
        authority = self._authority()
        for certificate in self._wanted.certificates:
            self._keep_certificate(authority, certificate)
        if self._wanted.nodes is not None:
            for asked in self._requests.list_certificate_signing_request(
                field_selector=f"spec.signerName={self._wanted.nodes.signer}"
            ).items:
                self._answer(authority, asked)

    def wait(self, seconds: int) -> None:
        """Returns when a node asks for a certificate, or after that long."""
        nodes = self._wanted.nodes
        if nodes is None:
            raise CannotKeepError("nobody asks where no nodes are wanted")
        watching = watch.Watch()
        for event in watching.stream(
            self._requests.list_certificate_signing_request,
            field_selector=f"spec.signerName={nodes.signer}",
            timeout_seconds=seconds,
        ):
            if event["type"] == "ADDED" and not _is_answered(event["object"]):
                watching.stop()

    def _authority(self) -> Authority:
        wanted = self._wanted.authority
        assert wanted is not None
        stored = self._read(wanted.secret)
        if stored is None and not wanted.make:
            raise CannotKeepError(
                f"the authority's Secret {wanted.secret} is not there yet; cert-manager makes it"
            )
        if stored is None:
            lifetime = datetime.timedelta(days=wanted.lifetime_days)
            pair = found_authority(wanted.common_name, self._now(), lifetime)
            self._create(wanted.secret, _TLS, _tls_data(pair, pair.certificate))
            log.info("an authority was made", secret=wanted.secret)
            stored = self._read(wanted.secret)
            assert stored is not None
        data = _decoded(stored)
        try:
            found = Authority.read(Pair(data.get(CERTIFICATE, b""), data.get(KEY, b"")))
        except UnusableError as error:
            raise CannotKeepError(
                f"Secret {self._namespace}/{wanted.secret} is no authority: {error}; mend it, or "
                "delete it and every certificate that it signed to begin anew"
            ) from error
        if found.ends_at - self._now() < _WARN_BEFORE:
            log.warning("the authority ends soon", secret=wanted.secret, at=str(found.ends_at))
        return found

    def _keep_certificate(self, authority: Authority, wanted: WantedCertificate) -> None:
        stored = self._read(wanted.secret)
        now = self._now()
        why = "it is not there"
        if stored is not None:
            self._check_ours(stored)
            data = _decoded(stored)
            why = authority.why_renew(data.get(CERTIFICATE, b""), wanted.uri, wanted.dns, now)
            if not why and data.get(AUTHORITY) == authority.pem:
                return
        pair = authority.issue(wanted.uri, wanted.dns, now, self._lifetime)
        made = _tls_data(pair, authority.pem)
        if stored is None:
            self._create(wanted.secret, _TLS, made)
        else:
            self._replace(stored, made)
        log.info("a certificate was made", secret=wanted.secret, why=why or "another authority")

    def _keep_token(self, wanted: WantedToken) -> None:
        stored = self._read(wanted.secret)
        if stored is None:
            self._create(wanted.secret, "Opaque", {wanted.key: secrets.token_hex(32).encode()})
            log.info("a token was made", secret=wanted.secret)
        elif not _decoded(stored).get(wanted.key):
            raise CannotKeepError(
                f"Secret {self._namespace}/{wanted.secret} has no key {wanted.key}; add it, or "
                "delete the Secret and it is made anew"
            )

    def _answer(self, authority: Authority, asked: Any) -> None:
        assert self._wanted.nodes is not None
        if _is_answered(asked):
            return
        spec = asked.spec
        verdict = judge(
            NodeRequest(
                name=asked.metadata.name,
                account=spec.username or "",
                extra=spec.extra or {},
                request=spec.request,
                usages=tuple(spec.usages or ()),
            ),
            self._wanted.nodes,
        )
        name = asked.metadata.name
        if not any(each.type == "Approved" for each in asked.status.conditions or ()):
            asked.status.conditions = [
                client.V1CertificateSigningRequestCondition(status="True", **_condition(verdict))
            ]
            asked = self._requests.replace_certificate_signing_request_approval(name, asked)
        if not isinstance(verdict, Granted):
            log.warning("a request was denied", request=name, why=verdict.why)
            return
        now = self._now()
        lifetime = self._lifetime
        if spec.expiration_seconds:
            lifetime = min(lifetime, datetime.timedelta(seconds=spec.expiration_seconds))
        signed = authority.sign(verdict.key, verdict.uri, (), now, lifetime)
        asked.status.certificate = base64.b64encode(signed).decode()
        self._requests.replace_certificate_signing_request_status(name, asked)
        log.info("a certificate was signed", request=name, identity=verdict.uri)

    def _read(self, name: str) -> Any:
        try:
            return self._core.read_namespaced_secret(name, self._namespace)
        except ApiException as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    def _create(self, name: str, kind: str, data: Mapping[str, bytes]) -> None:
        secret = client.V1Secret(
            metadata=client.V1ObjectMeta(name=name, labels=self._labels),
            type=kind,
            data=_encoded(data),
        )
        try:
            self._core.create_namespaced_secret(self._namespace, secret)
        except ApiException as error:
            if error.status != _CONFLICT:
                raise  # else another one made it meanwhile, and the next look finds it

    def _replace(self, stored: Any, data: Mapping[str, bytes]) -> None:
        # With the version that was read: who changed it meanwhile is not overwritten.
        stored.data = {**(stored.data or {}), **_encoded(data)}
        self._core.replace_namespaced_secret(stored.metadata.name, self._namespace, stored)

    def _check_ours(self, stored: Any) -> None:
        if (stored.metadata.labels or {}).get(MANAGED_BY) != OURS:
            raise CannotKeepError(
                f"Secret {self._namespace}/{stored.metadata.name} was made by somebody else (no "
                f"label {MANAGED_BY}={OURS}) and is not overwritten; delete or rename it"
            )


def _condition(verdict: Granted | Refused) -> dict[str, str]:
    if isinstance(verdict, Granted):
        return {"type": "Approved", "reason": "AgentOfNode", "message": verdict.uri}
    return {"type": "Denied", "reason": "NotOfItsNode", "message": verdict.why}


def _is_answered(asked: Any) -> bool:
    status = asked.status
    denied = any(each.type in ("Denied", "Failed") for each in status.conditions or ())
    return denied or bool(status.certificate)


def _tls_data(pair: Pair, authority: bytes) -> dict[str, bytes]:
    return {CERTIFICATE: pair.certificate, KEY: pair.key, AUTHORITY: authority}


def _encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    return {key: base64.b64encode(value).decode() for key, value in data.items()}


def _decoded(secret: Any) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in (secret.data or {}).items()}
