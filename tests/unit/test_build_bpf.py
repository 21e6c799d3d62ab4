# SPDX-License-Identifier: Apache-2.0
"""The build: nothing is compiled twice, and what is missing is named with the package that has it."""

from __future__ import annotations

from pathlib import Path

import pytest

import build_bpf


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return build_bpf.cache_folder()


class Compiler:
    """Writes what it was told to, and counts how often."""

    def __init__(self, content: bytes) -> None:
        """Remember what to write."""
        self.content = content
        self.runs = 0

    def __call__(self, output: Path) -> None:
        """Compile."""
        self.runs += 1
        output.write_bytes(self.content)


def test_the_same_inputs_are_compiled_once(tmp_path: Path) -> None:
    """Also when the file was deleted, or damaged, or is wanted in another place."""
    compiler, target = Compiler(b"object"), tmp_path / "out" / "object.o"
    for wanted in (target, target, tmp_path / "elsewhere.o"):
        build_bpf.provide(wanted, "key", compiler)
        assert wanted.read_bytes() == b"object"
    target.write_bytes(b"damaged")
    build_bpf.provide(target, "key", compiler)
    assert target.read_bytes() == b"object"
    assert compiler.runs == 1


def test_a_file_that_is_right_is_not_touched(tmp_path: Path) -> None:
    """Whoever watches it sees no change."""
    target = tmp_path / "object.o"
    build_bpf.provide(target, "key", Compiler(b"object"))
    before = target.stat()
    build_bpf.provide(target, "key", Compiler(b"object"))
    assert target.stat().st_ino == before.st_ino
    assert target.stat().st_mtime_ns == before.st_mtime_ns


def test_other_inputs_are_compiled_and_both_are_kept(tmp_path: Path, cache: Path) -> None:
    """Going back to the former ones costs nothing."""
    target, old, new = tmp_path / "object.o", Compiler(b"old"), Compiler(b"new")
    for key, compiler in (("old", old), ("new", new), ("old", old)):
        build_bpf.provide(target, key, compiler)
        assert target.read_bytes() == compiler.content
    assert (old.runs, new.runs) == (1, 1)
    assert {path.name for path in cache.iterdir()} == {"old", "new"}


def test_a_failed_compilation_leaves_everything_as_it_was(tmp_path: Path, cache: Path) -> None:
    """Neither a broken file nor one in the cache."""
    target = tmp_path / "object.o"
    build_bpf.provide(target, "old", Compiler(b"old"))

    def fail(output: Path) -> None:
        output.write_bytes(b"half")
        raise build_bpf.BuildError

    with pytest.raises(build_bpf.BuildError):
        build_bpf.provide(target, "new", fail)
    assert target.read_bytes() == b"old"
    assert [path.name for path in cache.iterdir()] == ["old"]


def test_every_input_counts_for_the_key() -> None:
    """And where one ends and the next begins."""
    assert len({build_bpf.digest(*parts) for parts in (("ab",), ("a", "b"), ("b", "a"), (b"a", ""), ("a",))}) == 5
    assert build_bpf.digest("a", b"b") == build_bpf.digest(b"a", "b")


def test_a_missing_tool_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is the command that installs it."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(build_bpf.BuildError, match=r"clang is not installed: apt-get install clang"):
        build_bpf.build()


def test_a_missing_header_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After what the compiler says."""
    source = tmp_path / "connect.bpf.c"
    source.write_text("#include <bpf/nowhere_to_be_found.h>\n")
    monkeypatch.setattr(build_bpf, "SOURCES", tmp_path)
    with pytest.raises(build_bpf.BuildError, match=r"(?s)nowhere_to_be_found.*apt-get install .*libbpf-dev"):
        build_bpf.build_object(source)


def test_objects_of_sources_that_are_gone_go_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no wheel ships them."""
    objects = tmp_path / "objects"
    objects.mkdir()
    (objects / "former.bpf.o").touch()
    (objects / "notes.txt").touch()
    monkeypatch.setattr(build_bpf, "SOURCES", tmp_path)
    monkeypatch.setattr(build_bpf, "OBJECTS", objects)
    monkeypatch.setattr(build_bpf, "build_binding", lambda: None)
    build_bpf.build()
    assert [path.name for path in objects.iterdir()] == ["notes.txt"]
