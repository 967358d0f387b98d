"""Which certificates an installation wants: the file that the chart writes, as frozen values."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class WantedFileError(Exception):
    """The file cannot be used; the message says what is wrong where."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WantedAuthority(_Part):
    """The authority that signs everything.

    Attributes:
        secret: Its Secret: ``tls.crt`` and ``tls.key``.
        make: Whether we make it; else somebody else does (cert-manager).
        common_name: Its name, for people.
        lifetime_days: How long it is valid.
    """

    secret: str
    make: bool = True
    common_name: str = "headrace"
    lifetime_days: int = Field(default=3650, ge=1)


class WantedCertificate(_Part):
    """One part's certificate.

    Attributes:
        secret: Where it is kept: ``tls.crt``, ``tls.key``, ``ca.crt``.
        uri: The part's identity, which roles hang on.
        dns: Names under which it is reached, for servers.
    """

    secret: str
    uri: str
    dns: tuple[str, ...] = ()


class WantedToken(_Part):
    """A word that only parts of the installation know, such as Ray's.

    Attributes:
        secret: Where it is kept.
        key: Under which key.
    """

    secret: str
    key: str


class WantedNodes(_Part):
    """How agents come to a certificate of their node.

    Attributes:
        signer: ``signerName`` of their CertificateSigningRequests.
        account: User name of the agents' service account.
        identity: What their identities begin with; the name of the node follows.
    """

    signer: str
    account: str
    identity: str = Field(pattern="/$")


class Wanted(_Part):
    """All of it.

    Attributes:
        authority: Who signs.
        certificates: What we make; empty where cert-manager does.
        tokens: Words that are made once.
        nodes: Whose requests are signed; None for none.
        lifetime_hours: Of each certificate but the authority's. It is renewed after two thirds.
    """

    authority: WantedAuthority | None = None
    certificates: tuple[WantedCertificate, ...] = ()
    tokens: tuple[WantedToken, ...] = ()
    nodes: WantedNodes | None = None
    lifetime_hours: float = Field(default=2160, ge=1)


def read_wanted(path: Path) -> Wanted:
    """The file's content.

    Raises:
        WantedFileError: It cannot be read, or is not as it must be.
    """
    try:
        return Wanted.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise WantedFileError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        places = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}"
            for one in error.errors()
        )
        raise WantedFileError(f"{path} is not as it must be: {places}") from error
