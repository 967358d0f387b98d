"""Settings of the control plane from flags and environment."""

from pathlib import Path

import pytest

from controlplane.config import RestoreSettings, ServeSettings, Tls, read_settings


def served(*flags: str, **environment: str) -> ServeSettings:
    settings = read_settings(flags, environment)
    assert isinstance(settings, ServeSettings)
    return settings


def test_without_anything_it_serves_on_loopback() -> None:
    settings = served()
    assert settings.listen.startswith("127.0.0.1:")
    assert settings.tls is None
    assert not settings.insecure_listen


def test_a_flag_wins_over_the_environment() -> None:
    environment = {"HEADRACE_LISTEN": "127.0.0.1:1", "HEADRACE_DATABASE_URL": "sqlite:///x"}
    settings = served("serve", "--listen", "127.0.0.1:2", **environment)
    assert (settings.listen, settings.database_url) == ("127.0.0.1:2", "sqlite:///x")
    assert served("--metrics-listen", "none").metrics_listen == ""
    assert served(HEADRACE_INSECURE_LISTEN="true").insecure_listen


def test_tls_is_all_or_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    files = ("--tls-key", "/k", "--tls-certificate", "/c", "--tls-client-ca", "/a")
    whole = served(*files, "--roles", "/r")
    assert whole.tls == Tls(Path("/k"), Path("/c"), Path("/a"), Path("/r"))
    with pytest.raises(SystemExit):
        served(*files)
    assert "--roles is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--listen", "nowhere"), "host:port"),
        (("--checkpoint-seconds", "0"), "above 0"),
        (("--prune-seconds", "soon"), "above 0"),
        (("--log-format", "xml"), "invalid choice"),
        (("restore",), "--from"),
    ],
)
def test_what_makes_no_sense_is_refused(
    flags: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings(flags, {})
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_restore_names_a_file_and_a_database() -> None:
    flags = ("restore", "--from", "b.gz", "--database-url", "sqlite:///n")
    assert read_settings(flags, {}) == RestoreSettings(Path("b.gz"), "sqlite:///n")
