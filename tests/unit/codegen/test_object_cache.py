"""What is stored comes back under its own name alone, and only from a folder that nobody else can write."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from openinfer.codegen import object_cache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "objects"
    monkeypatch.setenv("OPENINFER_CACHE", str(place))
    return place


def test_an_object_comes_back_under_its_own_name_alone(folder: Path) -> None:
    object_cache.store("one", "entry", b"code")
    assert object_cache.load("one") == ("entry", b"code")
    (folder / "one.o").rename(folder / "two.o")
    assert object_cache.load("two") is None


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_can_write_is_not_used(folder: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    object_cache.store("one", "entry", b"code")
    folder.chmod(mode)
    with caplog.at_level(logging.WARNING, "openinfer"):
        assert object_cache.load("one") is None
        object_cache.store("two", "entry", b"code")
    assert [path.name for path in folder.iterdir()] == ["one.o"]
    assert [record.message for record in caplog.records if str(folder) in record.message and "others" in record.message]
    folder.chmod(0o755)
    assert object_cache.load("one") == ("entry", b"code")


@pytest.mark.parametrize("change", ["content", "place", "another file"])
def test_the_key_follows_every_source_file(tmp_path: Path, change: str) -> None:
    def tree(name: str) -> Path:
        root = tmp_path / name
        (root / "ops").mkdir(parents=True)
        (root / "ops" / "a.py").write_text("N = 1")
        (root / "machine.py").write_text("LINE = 64")
        return root

    before, same, changed = tree("before"), tree("same"), tree("changed")
    if change == "content":
        (changed / "machine.py").write_text("LINE = 32")
    elif change == "place":
        (changed / "ops" / "a.py").rename(changed / "a.py")
    else:
        (changed / "new.py").write_text("")
    assert object_cache.package_hash(same) == object_cache.package_hash(before)
    assert object_cache.package_hash(changed) != object_cache.package_hash(before)


def test_the_key_of_a_program_follows_the_whole_package(monkeypatch: pytest.MonkeyPatch) -> None:
    roots: list[Path] = []
    monkeypatch.setattr(object_cache, "package_hash", lambda root: roots.append(root) or "hash of the package")
    first = object_cache.key("text", ())
    monkeypatch.setattr(object_cache, "__version__", "another")
    assert object_cache.key("text", ()) != first
    assert [root.name for root in roots] == ["openinfer"] * 2
