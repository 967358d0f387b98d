"""Keys and certificates (RFC 5280) on paper: made, signed and looked at; nothing is stored here."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

T = TypeVar("T", bound=x509.ExtensionType)

# A clock that is a little behind must not find them to lie in the future.
BACKDATED = datetime.timedelta(minutes=5)
_RENEWED_AFTER = 2 / 3
_COMMON_NAME_MAX = 64  # characters, by X.520


class UnusableError(Exception):
    """A key, a certificate or a request is not what it must be; the message says what came."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates.

    Attributes:
        pem: Its certificate.
    """

    pem: bytes
    _certificate: x509.Certificate
    _key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = field(repr=False)

    @classmethod
    def read(cls, pair: Pair) -> Self:
        """The authority of a stored pair.

        Raises:
            UnusableError: It is none.
        """
        certificate = _read_certificate(pair.certificate)
        try:
            key = serialization.load_pem_private_key(pair.key, None)
        except (ValueError, TypeError) as error:
            raise UnusableError(f"tls.key is no PEM key without a password: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise UnusableError(f"wanted an EC or RSA key, got {type(key).__name__}")
        if _spki(key.public_key()) != _spki(certificate.public_key()):
            raise UnusableError("tls.key does not belong to tls.crt")
        constraints = _extension(certificate, x509.BasicConstraints)
        if constraints is None or not constraints.ca:
            raise UnusableError("tls.crt is no certificate of an authority (CA:TRUE)")
        return cls(pair.certificate, certificate, key)

    @property
    def ends_at(self) -> datetime.datetime:
        """When nothing that it signed is valid any more."""
        return self._certificate.not_valid_after_utc

    def issue(
        self,
        uri: str,
        dns: Sequence[str],
        now: datetime.datetime,
        lifetime: datetime.timedelta,
    ) -> Pair:
        """A new key with its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        return Pair(self.sign(key.public_key(), uri, dns, now, lifetime), private_pem(key))

    def sign(
        self,
        key: CertificatePublicKeyTypes,
        uri: str,
        dns: Sequence[str],
        now: datetime.datetime,
        lifetime: datetime.timedelta,
    ) -> bytes:
        """A certificate for somebody's key; valid no longer than the authority."""
        names = [x509.UniformResourceIdentifier(uri), *(x509.DNSName(name) for name in dns)]
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if dns:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        ends = min(now + lifetime, self.ends_at)
        builder = (
            _builder(common_name(uri), self._certificate.subject, key, now, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)

    def why_renew(
        self, certificate: bytes, uri: str, dns: Sequence[str], now: datetime.datetime
    ) -> str:
        """Why a stored certificate must be made anew; empty if it need not be."""
        try:
            stored = _read_certificate(certificate)
            stored.verify_directly_issued_by(self._certificate)
        except UnusableError as error:
            return str(error)
        except Exception as error:  # whatever cryptography finds wrong with it
            return f"it is not signed by this authority: {error or type(error).__name__}"
        alternative = _extension(stored, x509.SubjectAlternativeName)
        found = alternative.get_values_for_type(x509.DNSName) if alternative else []
        if identities(alternative) != [uri] or sorted(found) != sorted(dns):
            return "its names are others than wanted"
        return "" if now < renewed_at(stored) else "two thirds of its time are over"


def found_authority(common: str, now: datetime.datetime, lifetime: datetime.timedelta) -> Pair:
    """A new authority, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common)
    certificate = (
        _builder(common, name, key.public_key(), now, now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM), private_pem(key))


def renewed_at(certificate: x509.Certificate) -> datetime.datetime:
    """When it is time for the next one."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begins + (ends - begins) * _RENEWED_AFTER


def read_renewal(certificate: bytes) -> datetime.datetime:
    """When it is time for the next one, of a PEM certificate.

    Raises:
        UnusableError: It is none.
    """
    return renewed_at(_read_certificate(certificate))


def request(uri: str) -> tuple[bytes, bytes]:
    """A new key, and a request (PKCS #10) to sign it for that identity; both as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    asked = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_name(common_name(uri)))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    return private_pem(key), asked.public_bytes(serialization.Encoding.PEM)


def identities(names: x509.SubjectAlternativeName | None) -> list[str]:
    """The URIs among them."""
    return names.get_values_for_type(x509.UniformResourceIdentifier) if names else []


def common_name(uri: str) -> str:
    """What people see; who somebody is hangs on the URI alone."""
    return uri.rstrip("/").rpartition("/")[2][:_COMMON_NAME_MAX]


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as unencrypted PKCS #8."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _read_certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise UnusableError(f"tls.crt is no PEM certificate: {error}") from error


def _extension(certificate: x509.Certificate, kind: type[T]) -> T | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _builder(
    common: str,
    issuer: x509.Name,
    key: CertificatePublicKeyTypes,
    now: datetime.datetime,
    ends: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(ends)
        # Python 3.13 refuses certificates without key identifiers.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:_COMMON_NAME_MAX])])


def _spki(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
