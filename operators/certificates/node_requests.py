"""Which requests of nodes may be signed: pure.

The API server writes into a CertificateSigningRequest who made it, and since Kubernetes 1.30 on
which node the pod runs whose token that was. So nobody has to be trusted with the name of a node.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from operators.certificates.authority import identities
from operators.certificates.wanted import WantedNodes

NODE_OF_POD = "authentication.kubernetes.io/node-name"
_USAGES = frozenset({"client auth", "digital signature"})
_RSA_BITS_MIN = 2048
_EC_BITS_MIN = 256


@dataclass(frozen=True, slots=True)
class NodeRequest:
    """What matters of a CertificateSigningRequest."""

    name: str
    account: str
    extra: Mapping[str, Sequence[str]]
    request: str
    usages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Granted:
    """It may be signed: this key, for this identity."""

    uri: str
    key: CertificatePublicKeyTypes


@dataclass(frozen=True, slots=True)
class Refused:
    """It may not, and why."""

    why: str


def judge(asked: NodeRequest, nodes: WantedNodes) -> Granted | Refused:
    """Whether an agent asks for the certificate of its own node, and for nothing else."""
    if asked.account != nodes.account:
        return Refused(f"wanted a request of {nodes.account}, it is of {asked.account}")
    node = [*asked.extra.get(NODE_OF_POD, ())]
    if len(node) != 1:
        return Refused(
            f"the API server does not say on which node the pod runs ({NODE_OF_POD}): wanted the "
            "token of a pod, and Kubernetes 1.30 or newer"
        )
    if set(asked.usages) - _USAGES or "client auth" not in asked.usages:
        return Refused(f"wanted the usages {sorted(_USAGES)}, got {sorted(asked.usages)}")
    try:
        parsed = x509.load_pem_x509_csr(base64.b64decode(asked.request))
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        key = parsed.public_key()
        is_signed = parsed.is_signature_valid
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        return Refused(f"it is no request with a URI in its alternative names: {error}")
    uri = nodes.identity + node[0]
    if len(names) != 1 or identities(names) != [uri]:
        return Refused(f"wanted the identity {uri} of that pod's node alone, got {list(names)}")
    if not is_signed:
        return Refused("who asks does not have the key")
    return Granted(uri, key) if _strong(key) else Refused("the key is too weak: wanted EC P-256")


def _strong(key: CertificatePublicKeyTypes) -> bool:
    match key:
        case rsa.RSAPublicKey():
            return key.key_size >= _RSA_BITS_MIN
        case ec.EllipticCurvePublicKey():
            return key.key_size >= _EC_BITS_MIN
    return False
