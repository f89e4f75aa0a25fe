"""The configuration: round trips, atomic writes, errors that name the knob."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import mlp

import openinfer
from openinfer.config import Config, later_version, to_toml, write_atomically
from openinfer.errors import ConfigError
from openinfer.version import __version__


def test_round_trip(tmp_path: Path) -> None:
    config = Config().with_knobs({"engine.threads": 2, "memory.huge_pages": True})
    path = tmp_path / "a.toml"
    config.save(path)
    assert Config.load(path) == config
    assert list(tmp_path.iterdir()) == [path]


tables = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), tables, max_size=4))
def test_evidence_survives_toml(evidence: dict[str, object]) -> None:
    import tomllib

    assert tomllib.loads(to_toml({"evidence": evidence})) == {"evidence": evidence}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[engine]\nthreds = 2\n", "unknown knob 'engine.threds'; did you mean 'threads'?"),
        ("[engine]\nthreads = 0\n", "engine.threads = 0; allowed: greater than or equal to 1"),
        ("[engine]\nthreads = 'x'\n", "engine.threads = 'x'"),
        ("[motor]\n", "unknown knob 'motor'"),
        ("engine = 1\n", "engine = 1"),
        ("[engine\n", "not valid TOML"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Config.load(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        Config.load(tmp_path / "none.toml")


def test_an_unknown_knob_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'engine\.threads'"):
        Config().with_knobs({"engine.thread": 2})


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.toml"
    path.write_text("old")

    def fail(handle: int) -> None:
        raise OSError("full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_get_the_permissions_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        Config().save(tmp_path / "c.toml")
    finally:
        os.umask(before)
    assert (tmp_path / "c.toml").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["c.toml"]


def test_a_configuration_of_a_later_version_says_so(tmp_path, caplog):
    later = {"provenance": {"versions": {"openinfer": "99.1.0"}}}
    with pytest.raises(ConfigError, match=r"unknown knob 'engine.flux'.*written by openinfer 99\.1\.0, this is .*update openinfer"):
        Config.parse({"engine": {"flux": 3}, **later})
    for values in (
        {},
        {"provenance": 3},
        {"provenance": {"versions": {"openinfer": 3}}},
        {"provenance": {"versions": {"openinfer": "0.0.9"}}},
    ):
        assert later_version(values) == ""
    assert later_version({"provenance": {"versions": {"openinfer": __version__}}}) == ""
    with caplog.at_level("WARNING", logger="openinfer"):
        openinfer.load(mlp(), Config.parse(later)).close()
    assert "written by openinfer 99.1.0" in caplog.text
