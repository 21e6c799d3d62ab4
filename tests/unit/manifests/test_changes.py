# SPDX-License-Identifier: Apache-2.0
"""A folder of manifests with real files and real inotify: what changes, and when."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from kubeproxy_ebpf.manifests import ManifestFolder
from kubeproxy_ebpf.manifests.file import read_text
from tests.unit.manifests.looking import Clock, said, seen, service


def test_a_file_comes_changes_and_goes(path: Path, folder: ManifestFolder) -> None:
    """A file that is written, written again and deleted."""
    assert folder.read_all() == []
    file = path / "a.yaml"
    file.write_text(service("web"))
    assert seen(folder) == {"web": "10.96.0.1"}
    file.write_text(service("web", "10.96.0.2"))
    assert seen(folder) == {"web": "10.96.0.2"}
    file.unlink()
    assert seen(folder) == {"web": None}


def test_only_what_differs_is_told(path: Path, folder: ManifestFolder) -> None:
    """Of a file with many objects, only those that changed are updates; the same text again is none."""
    file = path / "a.yaml"
    file.write_text("---\n".join(service(name) for name in "abc"))
    assert len(folder.read_all()) == 3
    file.write_text("---\n".join([service("a"), service("b", "10.96.0.2"), service("d")]))
    assert seen(folder) == {"b": "10.96.0.2", "c": None, "d": "10.96.0.1"}
    file.write_text(file.read_text())
    assert seen(folder) == {}


def test_only_the_changed_file_is_read(path: Path, folder: ManifestFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among many files, a change costs the reading of one."""
    for number in range(20):
        (path / f"{number}.yaml").write_text(service(f"s{number}"))
    folder.read_all()
    folder.drain()
    read: list[str] = []

    def record(file: Path) -> bytes | None:
        read.append(file.name)
        return read_text(file)

    monkeypatch.setattr("kubeproxy_ebpf.manifests.folder.read_text", record)
    (path / "7.yaml").write_text(service("s7", "10.96.0.7"))
    assert seen(folder) == {"s7": "10.96.0.7"}
    assert read == ["7.yaml"]


def test_a_file_counts_when_its_writer_is_done(path: Path, folder: ManifestFolder) -> None:
    """A file that is open for writing is not read, however much of it is there; nor one that was emptied."""
    assert folder.read_all() == []
    file = path / "a.yaml"
    with file.open("w") as opened:
        opened.write(service("web"))
        opened.flush()
        assert seen(folder) == {}
        opened.write("---\n" + service("more"))
    assert seen(folder) == {"web": "10.96.0.1", "more": "10.96.0.1"}
    with file.open("w") as opened:
        assert folder.drain() == []
        opened.write(service("web"))
    assert seen(folder) == {"more": None}


def test_renames(path: Path, folder: ManifestFolder) -> None:
    """A file renamed into place, over another, to another name, and to one that does not count."""
    draft = path / "draft"
    draft.write_text(service("web"))
    draft.rename(path / "a.yaml")
    assert seen(folder) == {"web": "10.96.0.1"}
    draft.write_text(service("web", "10.96.0.2"))
    draft.rename(path / "a.yaml")
    assert seen(folder) == {"web": "10.96.0.2"}
    (path / "a.yaml").rename(path / "b.yaml")
    assert seen(folder) == {}
    assert folder.problems == ()
    (path / "b.yaml").rename(path / "b.yaml.off")
    assert seen(folder) == {"web": None}


def test_moved_out_and_in(path: Path, tmp_path: Path, folder: ManifestFolder) -> None:
    """A file that leaves the folder is gone, one that comes from elsewhere is there."""
    (tmp_path / "a.yaml").write_text(service("web"))
    (tmp_path / "a.yaml").rename(path / "a.yaml")
    assert seen(folder) == {"web": "10.96.0.1"}
    (path / "a.yaml").rename(tmp_path / "a.yaml")
    assert seen(folder) == {"web": None}


def test_links(path: Path, tmp_path: Path, folder: ManifestFolder) -> None:
    """Hard and symbolic links count as soon as they are there."""
    (tmp_path / "a").write_text(service("hard"))
    os.link(tmp_path / "a", path / "a.yaml")
    assert seen(folder) == {"hard": "10.96.0.1"}
    (tmp_path / "b").write_text(service("soft"))
    (path / "b.yaml").symlink_to(tmp_path / "b")
    assert seen(folder) == {"soft": "10.96.0.1"}


def test_config_map(path: Path, folder: ManifestFolder) -> None:
    """A mounted ConfigMap, whose files are links through a link that is swapped."""

    def fill(version: str, text: dict[str, str]) -> None:
        (path / version).mkdir()
        for name, content in text.items():
            (path / version / name).write_text(content)
        (path / "..data_tmp").symlink_to(version)
        (path / "..data_tmp").rename(path / "..data")

    fill("..1", {"a.yaml": service("a"), "b.yaml": service("b")})
    for name in ("a.yaml", "b.yaml"):
        (path / name).symlink_to(f"..data/{name}")
    assert said(folder.read_all()) == {"a": "10.96.0.1", "b": "10.96.0.1"}
    fill("..2", {"a.yaml": service("a", "10.96.0.9"), "b.yaml": service("b")})
    shutil.rmtree(path / "..1")
    assert seen(folder) == {"a": "10.96.0.9"}
    (path / "b.yaml").unlink()
    assert seen(folder) == {"b": None}


def test_an_editors_backup(path: Path, folder: ManifestFolder, clock: Clock) -> None:
    """An editor that renames a file to its backup before writing it anew takes nothing away meanwhile."""
    file = path / "a.yaml"
    file.write_text(service("web"))
    folder.read_all()
    folder.drain()
    assert folder.due() is None
    file.rename(path / "a.yaml~")
    assert seen(folder) == {}
    assert folder.due() == 1.0
    clock.now += 0.5
    file.write_text(service("web", "10.96.0.2"))
    assert seen(folder) == {"web": "10.96.0.2"}
    assert folder.due() is None


def test_a_backup_without_a_new_file(path: Path, folder: ManifestFolder, clock: Clock) -> None:
    """A file that is not written anew within a second is gone."""
    file = path / "a.yaml"
    file.write_text(service("web"))
    folder.read_all()
    file.rename(path / "a.yaml~")
    assert seen(folder) == {}
    clock.now += 1.0
    assert folder.due() == 0
    assert said(folder.drain()) == {"web": None}
    assert folder.due() is None


def test_deleted_with_its_folder(path: Path, folder: ManifestFolder) -> None:
    """Files that are deleted are gone, also if their folder is then deleted, moved or made again."""
    (path / "a.yaml").write_text(service("a"))
    folder.read_all()
    shutil.rmtree(path)
    assert seen(folder) == {"a": None}
    assert [str(problem) for problem in folder.problems] == [
        f"{path}: cannot be listed (No such file or directory); the last state stays until it is there again: create it"
    ]
    path.mkdir()
    (path / "b.yaml").write_text(service("b"))
    assert seen(folder) == {"b": "10.96.0.1"}
    assert folder.problems == ()
    (path / "c.yaml").write_text(service("c"))
    assert seen(folder) == {"c": "10.96.0.1"}


def test_moved_folder(path: Path, tmp_path: Path, folder: ManifestFolder) -> None:
    """While the folder is away the last state stays; when another takes its place, that one counts."""
    (path / "a.yaml").write_text(service("a"))
    (path / "b.yaml").write_text(service("b"))
    folder.read_all()
    folder.drain()
    path.rename(tmp_path / "elsewhere")
    assert seen(folder) == {}
    assert len(folder.problems) == 1
    (tmp_path / "next").mkdir()
    (tmp_path / "next" / "b.yaml").write_text(service("b", "10.96.0.2"))
    (tmp_path / "next").rename(path)
    assert seen(folder) == {"a": None, "b": "10.96.0.2"}
    assert folder.problems == ()


def test_moved_ancestors(path: Path, tmp_path: Path) -> None:
    """The folder is found again also when folders above it went with it."""
    deep = path / "one" / "two"
    deep.mkdir(parents=True)
    with ManifestFolder(deep) as folder:
        (path / "one").rename(tmp_path / "away")
        (tmp_path / "away" / "two").rename(tmp_path / "two")
        folder.drain()
        assert len(folder.problems) == 1
        (path / "one").mkdir()
        assert seen(folder) == {}
        deep.mkdir()
        assert seen(folder) == {}
        assert folder.problems == ()
        (deep / "a.yaml").write_text(service("a"))
        assert seen(folder) == {"a": "10.96.0.1"}


def test_overflow(path: Path, folder: ManifestFolder) -> None:
    """When the kernel drops events, every file is looked at."""
    folder.read_all()
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for number in range(limit // 2 + 10):
        (path / f"{number % 2}.txt").touch()
    (path / "a.yaml").write_text(service("a"))
    assert seen(folder) == {"a": "10.96.0.1"}
