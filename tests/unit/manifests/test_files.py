# SPDX-License-Identifier: Apache-2.0
"""A folder of manifests with real files: which files count, and what they may hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kubeproxy_ebpf.manifests import ManifestFolder
from kubeproxy_ebpf.model.objects import EndpointSlice, Ignored, Node, Service
from tests.unit.manifests.looking import NODE, SLICE, named, newest, service


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
