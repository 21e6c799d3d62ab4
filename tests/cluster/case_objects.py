# SPDX-License-Identifier: Apache-2.0
"""The objects of behaviour cases, brought into the API server step by step, as far as it takes them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from tests.behaviour import Step
from tests.cluster.cluster import Cluster
from tests.kernel.agent_process import wait_until
from tools.kubernetes.errors import ApiError

_OWN = ("name", "namespace", "labels", "annotations")
"""What a client may say of an object's metadata; the rest is the server's."""

Name = tuple[str, str, str]
"""Kind, namespace and name."""


class CaseObjects:
    """What one case has brought into the API server."""

    def __init__(self, cluster: Cluster) -> None:
        """Begin with nothing."""
        self._cluster = cluster
        self._there: dict[Name, Mapping[str, Any]] = {}

    def go_to(self, step: Step) -> dict[str, str]:
        """Make the step's objects those that there are; return what was refused, by object, and why."""
        wanted = {_name(raw): raw for raw in step.objects}
        for name, old in list(self._there.items()):
            if name not in wanted or _uid(wanted[name]) != _uid(old):
                self._cluster.remove(_as_client_writes(self._there.pop(name)))
        refused: dict[str, str] = {}
        for raw in _by_age(raw for name, raw in wanted.items() if name not in self._there):
            self._put(raw, refused)
        for name in wanted.keys() & self._there.keys():
            if self._there[name] is not wanted[name]:
                self._put(wanted[name], refused)
        return refused

    def _put(self, raw: Mapping[str, Any], refused: dict[str, str]) -> None:
        """Put an object there, or what remains of it when the server has refused a part."""
        kind, namespace, name = _name(raw)
        try:
            self._cluster.ensure_namespace(namespace)
            self._cluster.put(_as_client_writes(raw))
        except ApiError as error:
            refused[f"{kind} {name}"] = error.message
            return
        self._there[kind, namespace, name] = raw


def _name(raw: Mapping[str, Any]) -> Name:
    metadata = raw["metadata"]
    return raw["kind"], metadata.get("namespace", "default"), metadata.get("name", "")


def _uid(raw: Mapping[str, Any]) -> str:
    return raw["metadata"].get("uid", "")


def _as_client_writes(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object without what is the server's, and with what the table takes for granted."""
    own = {"name": ""} | {key: value for key, value in raw["metadata"].items() if key in _OWN}
    written = {**raw, "metadata": own}
    spec = raw.get("spec")
    if isinstance(spec, dict) and spec.get("clusterIPs"):
        # Else the server may give it an address more or less than the case is about.
        policy = "RequireDualStack" if len(spec["clusterIPs"]) > 1 else "SingleStack"
        written["spec"] = {**spec, "ipFamilyPolicy": policy}
    return written


def _by_age(new: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    """Yield objects, the oldest first; those of one age within one second, as the server counts in seconds."""
    for age, group in groupby(sorted(new, key=_age), key=_age):
        if age:
            _wait_for_the_next_second(_second())
        yield from group


def _wait_for_the_next_second(second: int) -> None:
    wait_until(lambda: _second() > second, "the next second")


def _second() -> int:
    return int(time.time())  # noqa: TID251 - as the server dates objects


def _age(raw: Mapping[str, Any]) -> str:
    created: str = raw["metadata"].get("creationTimestamp", "")
    return created
