"""Where the control plane is: flags, then the environment, then the home's file."""

import stat
from pathlib import Path

import pytest

from headrace.client.context import (
    Context,
    NoContextError,
    forget,
    home_directory,
    load,
    read,
    write,
)


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    write(tmp_path, Context("127.0.0.1:1", local=True))
    environment = {"HEADRACE_SERVER": "127.0.0.1:2"}
    assert load(tmp_path, {}, {}) == Context("127.0.0.1:1", local=True)
    assert load(tmp_path, {}, environment) == Context("127.0.0.1:2")
    assert load(tmp_path, {"server": "127.0.0.1:3"}, environment).server == "127.0.0.1:3"


def test_another_server_gets_nothing_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, Context("a.example:1", ca_file="/ca", certificate_file="/c", key_file="/k"))
    assert load(tmp_path, {}, {}).ca_file == "/ca"
    with pytest.raises(NoContextError, match="--tls-ca"):
        load(tmp_path, {"server": "b.example:1"}, {})
    assert load(tmp_path, {"server": "b.example:1", "insecure": True}, {}).insecure


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"certificate_file": "c"}, "both --tls-cert and --tls-key"),
        ({"certificate_file": "c", "key_file": "k"}, "--tls-ca"),
    ],
)
def test_half_of_tls_is_refused(tmp_path: Path, flags: dict[str, str | bool], words: str) -> None:
    with pytest.raises(NoContextError, match=words):
        load(tmp_path, {"server": "127.0.0.1:1", **flags}, {})


@pytest.mark.parametrize("server", ["127.0.0.1:99999", "127.0.0.1:0", "[::1]:", "h:http"])
def test_what_is_no_port_is_told(tmp_path: Path, server: str) -> None:
    with pytest.raises(NoContextError, match="with a port from 1 to 65535, got") as caught:
        load(tmp_path, {"server": server, "insecure": True}, {})
    assert str(caught.value).endswith(server)


@pytest.mark.parametrize(
    "server", ["h:65535", "[::1]:7460", "[::1]", "unix:/run/h.sock", "dns:///h"]
)
def test_addresses_of_other_kinds_are_left_to_the_connection(tmp_path: Path, server: str) -> None:
    assert load(tmp_path, {"server": server, "insecure": True}, {}).server == server


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "context.json").write_text('{"sever": "x"}')
    with pytest.raises(NoContextError, match="cannot be used as a context"):
        load(tmp_path, {}, {})


def test_the_file_is_its_users_own_and_only_the_local_one_is_forgotten(tmp_path: Path) -> None:
    write(tmp_path, Context("a.example:1", ca_file="/ca"))
    assert stat.S_IMODE((tmp_path / "context.json").stat().st_mode) == 0o600
    forget(tmp_path)
    assert read(tmp_path) is not None
    write(tmp_path, Context("127.0.0.1:1", local=True))
    forget(tmp_path)
    assert read(tmp_path) is None


def test_the_home_is_chosen_by_the_environment(tmp_path: Path) -> None:
    assert home_directory({"HEADRACE_HOME": str(tmp_path)}) == tmp_path
    assert home_directory({}).name == ".headrace"
