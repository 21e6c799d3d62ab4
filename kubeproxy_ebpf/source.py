# SPDX-License-Identifier: Apache-2.0
"""The door that objects come through: what the agent asks of a source, whoever answers.

``manifests.ManifestFolder`` is a folder of files; ``kubernetes.source.ApiServerSource`` an API server.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from kubeproxy_ebpf.model.objects import KubernetesObject, ObjectName


class ObjectKey(NamedTuple):
    """Which object: there is one of a kind, namespace and name."""

    kind: str
    name: ObjectName

    def __str__(self) -> str:
        """Return ``Service default/web``."""
        return f"{self.kind} {self.name}"


class Update(NamedTuple):
    """The newest state of one object; None: it is gone."""

    key: ObjectKey
    newest: KubernetesObject | None
    uid: str = ""
    """Of an object that is gone: which one of that name. Empty: whichever there is."""


class Occurrence(NamedTuple):
    """Something to tell the cluster's people about an object, as a Kubernetes event does."""

    regarding: ObjectKey
    reason: str
    """A word in CamelCase, for machines."""
    note: str
    """A sentence, for people."""
    action: str
    """What was being done, a word in CamelCase."""
    is_warning: bool = True
    uid: str = ""
    """The object's, as far as it is known."""


class Source(Protocol):
    """A source of objects. Belongs to the thread that drains it."""

    @property
    def is_listed(self) -> bool:
        """Whether what was drained so far is all that there was at the start: before, nothing may be written."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether an object that was not drained does not exist. Before, nothing may be removed on that ground."""
        ...

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there is something to drain."""
        ...

    def due(self) -> float | None:
        """Return after how many seconds to drain even if nothing becomes readable; None: never."""
        ...

    def drain(self) -> list[Update]:
        """Return what changed since the last call, in order. Does not wait."""
        ...

    def report(self, occurrence: Occurrence) -> None:
        """Pass something on to whoever listens at the other end, if anybody does. Does not wait."""
        ...

    def close(self) -> None:
        """Give up what is held."""
        ...
