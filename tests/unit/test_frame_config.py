"""The configuration file: what is taken, what is refused and how the refusal names the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from podrt import config
from podrt.errors import InvalidError
from tests.framework.daemon import write_toml


def test_every_field_survives_the_file(tmp_path: Path) -> None:
    original = config.Config.under(tmp_path, "abc", subnet_v4="10.1.0.0/16", pids_limit=7, node_name="n1")
    write_toml(tmp_path / "config.toml", original)
    assert config.load(tmp_path / "config.toml") == original


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('log_level = "debug"\nmtu = 1400\n')
    loaded = config.load(file, {"log_level": "error"})
    assert (loaded.log_level, loaded.mtu) == ("error", 1400)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("colour = 1", "unknown key 'colour'"),
        ("mtu = '1500'", "mtu: must be of type int"),
        ("mtu = true", "mtu: must be of type int"),
        ("run_dir = 'relative'", "run_dir: must be an absolute path"),
        ("subnet_v4 = '10.0.0.300/8'", "subnet_v4"),
        ("subnet_v4 = 'fd00::/64'", "subnet_v4: fd00::/64 is of the wrong address family"),
        ("subnet_v4 = ''", "subnet_v4: required"),
        ("subnet_v6 = '10.0.0.0/8'", "subnet_v6: 10.0.0.0/8 is of the wrong address family"),
        ("mtu = ", "not valid TOML"),
    ],
)
def test_refusals_name_the_key(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(InvalidError) as refusal:
        config.load(file)
    assert named in str(refusal.value)
    assert str(file) in str(refusal.value)


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="can't read the configuration"):
        config.load(tmp_path / "absent.toml")


def test_no_ipv6_by_an_empty_subnet(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("subnet_v6 = ''")
    assert config.load(file).subnet_v6 == ""
