# SPDX-License-Identifier: Apache-2.0
"""Any sequence of changes to a folder of manifests leads where a fresh look at the folder leads."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kubeproxy_ebpf.manifests import ManifestFolder
from kubeproxy_ebpf.model.objects import KubernetesObject
from kubeproxy_ebpf.source import ObjectKey

FILES = ("a.yaml", "b.yaml", "c.json", "d.txt", "a.yaml~")
OBJECTS = st.dictionaries(st.sampled_from("uvwxyz"), st.integers(1, 3), max_size=4)
CHANGES: st.SearchStrategy[Any] = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(FILES), OBJECTS),
    st.tuples(st.just("spoil"), st.sampled_from(FILES), st.just({})),
    st.tuples(st.just("delete"), st.sampled_from(FILES), st.just({})),
    st.tuples(st.just("rename"), st.tuples(st.sampled_from(FILES), st.sampled_from(FILES)), st.just({})),
    st.tuples(st.just("look"), st.just(""), st.just({})),
)

State = dict[ObjectKey, KubernetesObject]


def text_of(objects: dict[str, int]) -> str:
    """Return a list of Services, which is YAML and JSON alike."""
    items = [
        {"kind": "Service", "metadata": {"name": name}, "spec": {"clusterIP": f"10.96.0.{number}"}}
        for name, number in objects.items()
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def change(path: Path, what: str, name: str | tuple[str, str], objects: dict[str, int]) -> None:
    """Do to the folder what the change says."""
    if isinstance(name, tuple):
        source, target = name
        if (path / source).exists():
            (path / source).rename(path / target)
    elif what == "write":
        (path / name).write_text(text_of(objects))
    elif what == "spoil":
        (path / name).write_text("{")
    elif what == "delete":
        (path / name).unlink(missing_ok=True)


def follow(state: State, folder: ManifestFolder) -> None:
    """Take over what the folder says has changed; nothing that is no change may be told."""
    for key, newest, _ in folder.drain():
        assert state.get(key) != newest
        if newest is None:
            del state[key]
        else:
            state[key] = newest


def fresh(path: Path) -> tuple[State, int]:
    """Return what a fresh look at the folder says, and how many problems it has."""
    with ManifestFolder(path) as folder:
        state = {key: newest for key, newest, _ in folder.read_all() if newest is not None}
        return state, len(folder.problems)


@settings(deadline=None, max_examples=150)
@given(st.lists(CHANGES, max_size=12))
def test_any_way_leads_to_the_same_state(changes: list[tuple[str, str | tuple[str, str], dict[str, int]]]) -> None:
    """Whatever happened, and whenever somebody looked, the updates add up to what the files say in the end."""
    now = 0.0
    with tempfile.TemporaryDirectory() as name, ManifestFolder(Path(name), lambda: now) as folder:
        path = Path(name)
        state: State = {}
        for what, names, objects in changes:
            if what == "look":
                follow(state, folder)
            else:
                change(path, what, names, objects)
        follow(state, folder)
        now += 10  # whatever an editor set aside
        follow(state, folder)
        expected, problems = fresh(path)
        if problems == 0:
            assert folder.problems == ()
            assert state == expected
        else:
            assert folder.problems != ()
            assert state.keys() >= expected.keys()
