"""Flags of the agent: what they make, and what is said about those that make no sense."""

from pathlib import Path

import pytest

from agent.settings import AgentSettings, SettingsError, address_towards, parse
from controlplane.config import ServeSettings, read_settings

WAYS = {"10.0.0.1:7070": "10.0.0.7", "named:7070": "127.0.1.1", "[fd00::1]:1": "fd00::7"}
"""From which address this machine reaches others."""


def parsed(*more: str, **environment: str) -> AgentSettings:
    return parse(
        ["--ray-address", "h:1", "--state-dir", "state", "--node", "n", *more],
        environment,
        towards=lambda control_plane: WAYS[control_plane],
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


def test_a_rack_is_a_label_however_it_is_told() -> None:
    by_option, by_label = parsed("--rack", "r1"), parsed("--label", "headrace.dev/rack=r1")
    assert by_option.description.labels == {"headrace.dev/rack": "r1"}
    assert by_label.description == by_option.description
    both = parsed("--rack", "r1", "--label", "headrace.dev/rack=r1", "--label", "zone=a")
    assert both.description.labels == {"headrace.dev/rack": "r1", "zone": "a"}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--label", "zone"], "KEY=VALUE"),
        (["--taint", "=x"], "KEY=VALUE"),
        (["--rack", "row 1"], "1 to 63 letters"),
        (["--rack", "r1", "--label", "headrace.dev/rack=r2"], "contradict each other"),
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
    assert [file.read_text() for file in (tls.ca, tls.certificate, tls.key)] == [
        "ca",
        "certificate",
        "key",
    ]
    assert "b'key'" not in repr(tls)


@pytest.mark.parametrize(
    ("flags", "address"),
    [
        ((), "127.0.0.1"),
        (("--control-plane", "localhost:7070"), "127.0.0.1"),
        (("--control-plane", "10.0.0.1:7070", "--insecure"), "10.0.0.7"),
        (("--control-plane", "[fd00::1]:1", "--insecure"), "fd00::7"),
        (("--control-plane", "named:7070", "--insecure", "--advertise-address", "a"), "a"),
    ],
)
def test_other_nodes_are_told_where_they_reach_this_one(
    flags: tuple[str, ...], address: str
) -> None:
    made = parsed(*flags)
    assert made.description.address == address
    assert made.units.launch.advertise_address == address


def test_a_node_that_others_would_not_find_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"from 127\.0\.1\.1, where no .*--advertise-address"):
        parsed("--control-plane", "named:7070", "--insecure")

    def no_way(control_plane: str) -> str:
        raise OSError("Network is unreachable")

    flags = ["--ray-address", "h:1", "--state-dir", "s", "--insecure"]
    with pytest.raises(SettingsError, match=r"unreachable.*--advertise-address"):
        parse([*flags, "--control-plane", "10.0.0.1:7070"], {}, towards=no_way)
    # Ending what runs here asks nobody else.
    parse([*flags, "end-units", "--control-plane", "10.0.0.1:7070"], {}, towards=no_way)


def test_this_machines_own_address_on_the_way_to_another() -> None:
    assert address_towards("127.0.0.1:1") == "127.0.0.1"
    with pytest.raises(OSError):  # noqa: PT011 - whatever the resolver says
        address_towards("no-such-host.invalid:1")
