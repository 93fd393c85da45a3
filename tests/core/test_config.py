"""Configuration: files, overrides, and lists that are registered late."""

from __future__ import annotations

from pathlib import Path

from oslo_config import cfg

from core import config


def test_files_are_read_and_late_options_see_them(tmp_path: Path) -> None:
    file = tmp_path / "h.conf"
    file.write_text("[DEFAULT]\nhost = h7\n[extra]\nnumber = 5\n")
    conf = config.load([file])
    assert conf.host == "h7"
    options = [("extra", [cfg.IntOpt("number", default=1)])]
    config.register(conf, options)
    config.register(conf, options)
    assert conf.extra.number == 5
    config.override(conf, "extra.number", 9)
    assert conf.extra.number == 9


def test_two_configurations_do_not_share_anything(tmp_path: Path) -> None:
    one, other = config.load(overrides={"host": "a"}), config.load(overrides={"host": "b"})
    assert (one.host, other.host) == ("a", "b")
