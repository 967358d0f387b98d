"""Flags of the agent: what they make, and what is said about those that make no sense."""

from pathlib import Path

import pytest

from agent.settings import AgentSettings, SettingsError, is_loopback, parse
from controlplane.config import ServeSettings, read_settings


def parsed(*more: str, **environment: str) -> AgentSettings:
    return parse(
        ["--ray-address", "h:1", "--state-dir", "state", "--node", "n", *more], environment
    )


def test_flags_become_settings(tmp_path: Path) -> None:
    made = parsed(
        *("run", "--label", "zone=a=b", "--taint", "gpu", "--taint", "team=x"),
        *("--cpu-cores", "0,2-4", "--slots", "2", "--accelerators", "cpu"),
        *("--advertise-address", "10.0.0.1", "--run-as-uid", "7"),
        HEADRACE_SECRETS_DIR="/secrets",
    )
    assert made.command == "run"
    assert made.description.labels == {"zone": "a=b"}
    assert made.description.taints == (("gpu", ""), ("team", "x"))
    assert made.description.address == "10.0.0.1"
    assert made.accelerators.cpu_cores == (0, 2, 3, 4)
    assert made.units.root == Path.cwd() / "state" / "n"
    assert made.units.launch.secrets_folder == "/secrets"
    assert made.units.launch.run_as_uid == 7
    assert made.tls is None


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--label", "zone"], "KEY=VALUE"),
        (["--taint", "=x"], "KEY=VALUE"),
        (["--cpu-cores", "a-b"], "numbers such as"),
        (["--node", "a/b"], "no '/'"),
        (["--node", "a:b"], "no ':'"),
        (["--control-plane", "10.0.0.1:7070"], "--insecure goes without"),
        (["--tls-ca", "ca.pem"], "belong together"),
        (
            ["--tls-ca", "none", "--tls-certificate", "none", "--tls-key", "none"],
            "none cannot be read",
        ),
    ],
)
def test_senseless_flags_are_answered_with_what_would_help(flags: list[str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        parsed(*flags)


def test_agent_and_control_plane_find_each_other_when_nobody_names_an_address() -> None:
    served = read_settings([], {})
    assert isinstance(served, ServeSettings)
    assert parsed().control_plane == served.listen


def test_insisting_on_no_tls_is_allowed() -> None:
    assert parsed("--control-plane", "10.0.0.1:7070", "--insecure").tls is None


def test_certificates_are_read(tmp_path: Path) -> None:
    flags = []
    for name in ("ca", "certificate", "key"):
        (tmp_path / name).write_text(name)
        flags += [f"--tls-{name}", str(tmp_path / name)]
    tls = parsed("--control-plane", "10.0.0.1:7070", *flags).tls
    assert tls is not None
    assert (tls.ca, tls.certificate, tls.key) == (b"ca", b"certificate", b"key")
    assert "b'key'" not in repr(tls)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.3.2.1:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("unix:/run/headrace.sock", True),
        ("10.0.0.1:1", False),
        ("0.0.0.0:1", False),
        ("localhost.example.org:1", False),
    ],
)
def test_loopbacks(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected
