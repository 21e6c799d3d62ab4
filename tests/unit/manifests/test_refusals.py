# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - the messages that are expected are one line each
"""A folder of manifests with real files: what is refused, and what then stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kubeproxy_ebpf.manifests import ManifestFolder, ManifestFolderError
from kubeproxy_ebpf.model.objects import Service
from tests.unit.manifests.looking import SLICE, named, newest, problems, said, seen, service


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
    (update,) = folder.read_all()
    assert isinstance(update.newest, Service)
    assert len(update.newest.ports) == 1
    assert update.newest.problems == ()  # told here, with file and line, and by nobody else
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
