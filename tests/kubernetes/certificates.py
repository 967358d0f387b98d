"""A certificate authority of one cluster, and the kubeconfigs of who may talk to it."""

import base64
import datetime
import ipaddress
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = datetime.timedelta(days=30)
# A clock that is a little behind must not find them to lie in the future.
_BACKDATED = datetime.timedelta(hours=1)


class Authority:
    """Signs for one cluster; its files are below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate_file = folder / "ca.crt"
        self._key_file = folder / "ca.key"
        if not self.certificate_file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            self._found()

    def _found(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("headrace-test-ca", ())
        certificate = (
            _builder(name, name, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        self._key_file.write_bytes(_private(key))
        self.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, name: str, hosts: tuple[str, ...]) -> tuple[Path, Path]:
        """Writes certificate and key of a server that is reached by these names and addresses."""
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        return self._written(name, self._signed(name, (), ExtendedKeyUsageOID.SERVER_AUTH, names))

    def client(self, user: str, groups: tuple[str, ...]) -> tuple[Path, Path]:
        """Writes certificate and key of a user, for who takes no kubeconfig."""
        return self._written(user, self._signed(user, groups, ExtendedKeyUsageOID.CLIENT_AUTH))

    def _written(self, name: str, signed: tuple[bytes, bytes]) -> tuple[Path, Path]:
        files = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        for file, content in zip(files, signed, strict=True):
            file.write_bytes(content)
        return files

    def kubeconfig(self, file: Path, server: str, user: str, groups: tuple[str, ...]) -> Path:
        """Writes what kubectl, helm and clients need to be this user at this server."""
        certificate, key = self._signed(user, groups, ExtendedKeyUsageOID.CLIENT_AUTH)
        cluster = {
            "server": server,
            "certificate-authority-data": _text(self.certificate_file.read_bytes()),
        }
        credentials = {"client-certificate-data": _text(certificate), "client-key-data": _text(key)}
        described = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        }
        # helm warns of a kubeconfig that others can read.
        file.touch(mode=0o600)
        file.write_text(yaml.safe_dump(described), encoding="utf-8")
        return file

    def _signed(
        self,
        user: str,
        groups: tuple[str, ...],
        usage: x509.ObjectIdentifier,
        hosts: x509.SubjectAlternativeName | None = None,
    ) -> tuple[bytes, bytes]:
        of_authority = x509.load_pem_x509_certificate(self.certificate_file.read_bytes())
        signer = serialization.load_pem_private_key(self._key_file.read_bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        builder = (
            _builder(_name(user, groups), of_authority.subject, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(issuer, critical=False)
        )
        if hosts is not None:
            builder = builder.add_extension(hosts, critical=False)
        certificate = builder.sign(signer, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM), _private(key)


def service_account_keys(folder: Path) -> tuple[Path, Path]:
    """Writes the key pair that signs and checks tokens of service accounts: private, public."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private, public = folder / "sa.key", folder / "sa.pub"
    private.write_bytes(_private(key))
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + _LIFETIME)
        # Python 3.13 refuses certificates without key identifiers.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(user: str, groups: tuple[str, ...]) -> x509.Name:
    """Kubernetes takes the common name as the user and each organization as a group."""
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _text(pem: bytes) -> str:
    return base64.b64encode(pem).decode()
