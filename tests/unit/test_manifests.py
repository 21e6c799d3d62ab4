# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - the messages that are expected are one line each
"""A folder of manifests with real files and real inotify: what counts, what changes, what is refused."""

from __future__ import annotations

import json
import os
import select
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kubeproxy_ebpf.manifests import ManifestFolder, ManifestFolderError
from kubeproxy_ebpf.manifests.file import read_text
from kubeproxy_ebpf.model.address import format_address
from kubeproxy_ebpf.model.objects import EndpointSlice, Ignored, KubernetesObject, Node, ObjectName, Service
from kubeproxy_ebpf.source import ObjectKey, Update


def service(name: str, address: str = "10.96.0.1", extra: str = "") -> str:
    """Return a Service as YAML."""
    return (
        f"apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  clusterIP: {address}\n"
        f"  ports:\n  - port: 80\n{extra}"
    )


SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-abc
  labels: {kubernetes.io/service-name: web}
addressType: IPv4
ports: [{name: '', port: 8080}]
endpoints:
- addresses: [10.244.0.5]
"""
NODE = "apiVersion: v1\nkind: Node\nmetadata: {name: node-a}\n"


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        """Start at 100 seconds."""
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a folder for manifests."""
    path = tmp_path / "manifests"
    path.mkdir()
    return path


@pytest.fixture
def clock() -> Clock:
    """Return the folder's clock."""
    return Clock()


@pytest.fixture
def folder(path: Path, clock: Clock) -> Iterator[ManifestFolder]:
    """Watch the folder."""
    with ManifestFolder(path, clock) as watched:
        yield watched


def named(name: str, kind: str = "Service") -> ObjectKey:
    """Return the key of an object in the default namespace."""
    return ObjectKey(kind, ObjectName("" if kind == "Node" else "default", name))


def newest(updates: list[Update]) -> dict[ObjectKey, KubernetesObject | None]:
    """Return the newest state of each object that changed."""
    return {update.key: update.newest for update in updates}


def said(updates: list[Update]) -> dict[str, str | None]:
    """Return, by name, the first ClusterIP of each Service that changed; None for one that is gone."""
    result: dict[str, str | None] = {}
    for key, state in newest(updates).items():
        assert state is None or isinstance(state, Service)
        result[key.name.name] = format_address(state.cluster_ips[0]) if state else None
    return result


def seen(folder: ManifestFolder) -> dict[str, str | None]:
    """Wait until the folder's descriptor says that something happened, and return what it means."""
    assert select.select([folder], [], [], 10)[0]
    return said(folder.drain())


def problems(folder: ManifestFolder) -> list[str]:
    """Return the problems without the folder's own path."""
    return [str(problem).replace(f"{problem.file.parent}/", "") for problem in folder.problems]


# What a file may hold


def test_every_kind_of_object(path: Path, folder: ManifestFolder) -> None:
    """Services, slices, nodes and what is none of our business, in several documents of a file."""
    ignored = service("headless", "None")
    (path / "all.yaml").write_text("---\n".join(["", service("web"), SLICE, NODE, ignored, "kind: Pod\n", "# no\n"]))
    updates = newest(folder.read_all())
    assert isinstance(updates[named("web")], Service)
    assert isinstance(updates[named("web-abc", "EndpointSlice")], EndpointSlice)
    assert isinstance(updates[named("node-a", "Node")], Node)
    assert isinstance(updates[named("headless")], Ignored)
    assert len(updates) == 4
    assert folder.problems == ()


def test_lists(path: Path, folder: ManifestFolder) -> None:
    """Lists may be typed, whose items need no kind, and nested; JSON and YAML alike."""
    inner = {"apiVersion": "v1", "kind": "ServiceList", "items": [{"metadata": {"name": "b"}, "spec": {}}]}
    outer = {"apiVersion": "v1", "kind": "List", "items": [inner, {"kind": "List", "items": None}, {"kind": "Pod"}]}
    (path / "a.json").write_text(json.dumps(outer))
    (path / "b.yml").write_text(json.dumps(outer).replace('"b"', '"c"'))
    assert list(newest(folder.read_all())) == [named("b"), named("c")]
    assert folder.problems == ()


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_long_list(path: Path, folder: ManifestFolder, suffix: str) -> None:
    """Of a long list every item is read, and one that is refused has its line."""
    items: list[dict[str, object]] = [
        {"kind": "Service", "metadata": {"name": f"s{number}"}, "spec": {}} for number in range(350)
    ]
    items[250]["spec"] = 5
    lines = ",\n".join(json.dumps(item) for item in items)
    (path / f"a.{suffix}").write_text(f'{{"kind": "List", "items": [\n{lines}]}}')
    names = {key.name.name for key in newest(folder.read_all())}
    assert names == {f"s{number}" for number in range(350)} - {"s250"}
    (problem,) = folder.problems
    assert (problem.line, problem.subject) == (252, "Service default/s250")


def test_another_groups_service(path: Path, folder: ManifestFolder) -> None:
    """A Service of another API group is another kind of object."""
    (path / "a.yaml").write_text(service("web").replace("apiVersion: v1", "apiVersion: serving.knative.dev/v1"))
    assert folder.read_all() == []
    assert folder.problems == ()


@pytest.mark.parametrize("name", [".a.yaml", "#a.yaml#", "a.yaml~", "a.yaml.swp", "4913", "a.txt", ".a.yaml.swp"])
def test_names_that_do_not_count(path: Path, folder: ManifestFolder, name: str) -> None:
    """Hidden files, editors' leftovers and other suffixes are not read."""
    (path / name).write_text(service("web"))
    assert folder.read_all() == []
    assert folder.drain() == []


def test_folders_do_not_count(path: Path, folder: ManifestFolder) -> None:
    """What lies in folders of the folder is not read."""
    (path / "inner").mkdir()
    (path / "inner" / "a.yaml").write_text(service("web"))
    assert folder.read_all() == []
    assert folder.drain() == []


# What changes


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


# What is refused


def test_syntax_error(path: Path, folder: ManifestFolder) -> None:
    """A file with a syntax error keeps its last good state, and does not disturb others."""
    file = path / "a.yaml"
    file.write_text(service("a"))
    folder.read_all()
    folder.drain()
    with capture_logs() as logs:
        file.write_text(service("a", "10.96.0.2") + "---\nkind: Service: b\n")
        (path / "b.yaml").write_text(service("b"))
        assert seen(folder) == {"b": "10.96.0.1"}
        reason = "is not YAML: mapping values are not allowed in this context; mend it"
        assert problems(folder) == [f"a.yaml:10: {reason}"]
        file.write_text(service("a", "10.96.0.3"))
        assert seen(folder) == {"a": "10.96.0.3"}
    assert folder.problems == ()
    assert logs == [
        {"event": "manifest_refused", "log_level": "error", "file": str(file), "line": 10, "object": "", "reason": reason},
        {"event": "manifest_mended", "log_level": "info", "file": str(file)},
    ]  # fmt: skip


def test_json_syntax_error(path: Path, folder: ManifestFolder) -> None:
    """JSON's errors have their line too."""
    (path / "a.json").write_text('{\n  "kind": "Service",\n}')
    assert folder.read_all() == []
    (problem,) = problems(folder)
    assert problem.startswith("a.json:2: is not JSON: ")


def test_malformed_object(path: Path, folder: ManifestFolder) -> None:
    """A malformed object is refused alone, named with its field's line; its last good state stays."""
    file = path / "a.yaml"
    file.write_text(service("a") + "---\n" + service("b"))
    folder.read_all()
    file.write_text(
        service("a", "10.96.0.7") + "---\n" + service("b", extra="  sessionAffinity: [no]\n") + "---\n" + SLICE
    )
    updates = newest(folder.drain())
    assert set(updates) == {named("a"), named("web-abc", "EndpointSlice")}
    (problem,) = folder.problems
    assert (problem.line, problem.subject) == (18, "Service default/b")
    assert "spec.sessionAffinity" in problem.reason
    file.write_text(service("a", "10.96.0.7"))
    assert newest(folder.drain()) == {named("b"): None, named("web-abc", "EndpointSlice"): None}
    assert folder.problems == ()


def test_partly_usable_object(path: Path, folder: ManifestFolder) -> None:
    """An object with an unusable entry is taken without it, and the entry is a problem."""
    (path / "a.yaml").write_text("# comment\n" + service("a", extra="  - port: 99999\n"))
    assert said(folder.read_all()) == {"a": "10.96.0.1"}
    (problem,) = folder.problems
    assert (problem.line, problem.subject, problem.is_partial) == (2, "Service default/a", True)
    assert "spec.ports[1]" in problem.reason


def test_object_without_name(path: Path, folder: ManifestFolder) -> None:
    """While an object does not say who it is, nothing of its file counts as gone."""
    file = path / "a.yaml"
    file.write_text(service("a") + "---\n" + service("b"))
    folder.read_all()
    file.write_text(service("a", "10.96.0.7") + "---\n" + service("''"))
    assert said(folder.drain()) == {"a": "10.96.0.7"}
    assert len(folder.problems) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("just text\n", "a.yaml:1: holds something that is no object; write one with apiVersion, kind and metadata"),
        ("---\n---\n\nmetadata: {name: a}\n", "a.yaml:4: holds an object without kind; write its apiVersion and kind"),
        ("kind: [Service]\n", "a.yaml:1: holds an object without kind; write its apiVersion and kind"),
        ("kind: List\nitems: 3\n", "a.yaml:2: holds a list whose items are no list; write one"),
        ("kind: List\nitems:\n- 5\n", "a.yaml:3: holds something that is no object; write one with apiVersion, kind and metadata"),
        (service("a") + "---\n" + service("a"), "a.yaml:10: Service default/a: is in this file twice, the first counts; remove one"),
        ("{kind: List, items: [" * 10 + "]}" * 10, "a.yaml:1: holds lists in lists, more than 8 deep; write them flat"),
        ("[" * 100_000, "a.yaml:1: is not YAML: nested more than 64 deep; mend it"),
        ("a: \0\n", "a.yaml: is not YAML: unacceptable character #x0000: control characters are not allowed; mend it"),
    ],
    ids=lambda value: value[:30] if value.startswith("a.") else "",
)  # fmt: skip
def test_bad_file(path: Path, folder: ManifestFolder, text: str, problem: str) -> None:
    """What is no manifest is one problem with its place and remedy."""
    (path / "a.yaml").write_text(text)
    folder.read_all()
    assert problems(folder) == [problem]


def test_many_problems(path: Path, folder: ManifestFolder) -> None:
    """A file full of errors gives a bounded number of problems."""
    (path / "a.yaml").write_text("kind: List\nitems:\n" + "- 5\n" * 1000)
    folder.read_all()
    assert len(folder.problems) == 21
    assert problems(folder)[-1] == "a.yaml: has 980 more problems; mend the first ones"


def test_files_that_cannot_be_read(path: Path, folder: ManifestFolder) -> None:
    """A FIFO, a dangling link, a loop, a huge file and a folder under a manifest's name do not stop the others."""
    os.mkfifo(path / "fifo.yaml")
    (path / "folder.yaml").mkdir()
    (path / "dangling.yaml").symlink_to("nowhere")
    (path / "loop.yaml").symlink_to("loop.yaml")
    (path / "huge.yaml").touch()
    os.truncate(path / "huge.yaml", (64 << 20) + 1)
    (path / "a.yaml").write_text(service("a"))
    assert said(folder.read_all()) == {"a": "10.96.0.1"}
    assert problems(folder) == [
        "fifo.yaml: is no regular file; remove it",
        "folder.yaml: is no regular file; remove it",
        "huge.yaml: is larger than 64 MiB; split it",
        "loop.yaml: cannot be opened (Too many levels of symbolic links); make it readable or remove it",
    ]
    (path / "huge.yaml").unlink()
    assert seen(folder) == {}
    assert len(folder.problems) == 3


def test_an_object_in_two_files(path: Path, folder: ManifestFolder) -> None:
    """The file that had it first counts; the other is a problem that names both, and takes over when it can."""
    (path / "b.yaml").write_text("# comment\n" + service("web"))
    folder.read_all()
    folder.drain()
    (path / "a.yaml").write_text("# two\n# lines\n" + service("web", "10.96.0.2") + "---\n" + service("other"))
    assert seen(folder) == {"other": "10.96.0.1"}
    (problem,) = folder.problems
    assert str(problem) == (
        f"{path}/a.yaml:3: Service default/web: is in {path}/b.yaml too, which counts; remove it from one of the two"
    )
    (path / "b.yaml").unlink()
    assert seen(folder) == {"web": "10.96.0.2"}
    assert folder.problems == ()


def test_two_files_at_the_start(path: Path, folder: ManifestFolder) -> None:
    """At the start the file whose name comes first counts."""
    (path / "b.yaml").write_text(service("web", "10.96.0.2"))
    (path / "a.yaml").write_text(service("web"))
    assert said(folder.read_all()) == {"web": "10.96.0.1"}
    assert len(folder.problems) == 1
    (path / "b.yaml").unlink()
    assert seen(folder) == {}
    assert folder.problems == ()


def test_many_objects_in_two_files(path: Path, folder: ManifestFolder) -> None:
    """A copied file is a bounded number of problems."""
    text = "---\n".join(service(f"s{number}") for number in range(50))
    (path / "a.yaml").write_text(text)
    (path / "b.yaml").write_text(text)
    assert len(folder.read_all()) == 50
    assert len(folder.problems) == 21
    assert problems(folder)[-1] == "b.yaml: has 30 more objects that other files have; remove them"


def test_missing_folder(tmp_path: Path) -> None:
    """Without a folder there is nothing to start with."""
    with pytest.raises(ManifestFolderError, match=r"cannot be watched .*; create the folder, or name another"):
        ManifestFolder(tmp_path / "missing")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """A file in the folder's place is refused."""
    (tmp_path / "file").touch()
    with pytest.raises(ManifestFolderError, match="Not a directory"):
        ManifestFolder(tmp_path / "file")
