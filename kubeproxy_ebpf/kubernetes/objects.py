# SPDX-License-Identifier: Apache-2.0
"""The objects of one kind, as a server tells of them: which there are, and what is news. No body is kept."""

from __future__ import annotations

import structlog

from kubeproxy_ebpf.decode import ObjectError
from kubeproxy_ebpf.kubernetes.errors import BrokenStreamError
from kubeproxy_ebpf.kubernetes.kinds import WatchedKind
from kubeproxy_ebpf.model.objects import ObjectName
from kubeproxy_ebpf.source import ObjectKey, Update

_log = structlog.get_logger(__name__)


class KnownObjects:
    """Name and uid of each object there is. Objects are told apart by uid: names come back."""

    def __init__(self, kind: WatchedKind) -> None:
        """Start without objects."""
        self._kind = kind
        self._names: dict[str, ObjectName] = {}
        self._refused: dict[str, str] = {}
        self._listed: set[str] | None = None

    @property
    def refused(self) -> int:
        """How many objects there are that cannot be used: for each its last good state stands."""
        return len(self._refused)

    def begin_listing(self) -> None:
        """Everything that there is will be told now."""
        self._listed = set()

    def end_listing(self) -> list[Update]:
        """Return the removal of all that was known and not told of since the listing began."""
        listed, self._listed = self._listed or set(), None
        return [self._forget(uid) for uid in self._names.keys() - listed]

    def set(self, raw: object) -> Update | None:
        """Take over the newest state of an object; None: it cannot be used.

        Raises:
            BrokenStreamError: it is none of this kind, or has no name or uid.
        """
        try:
            newest = self._kind.decode(raw)
        except ObjectError as error:
            uid, name = self._identity(raw)
            self._note(uid)
            self._names.setdefault(uid, name)
            self._refuse(uid, name, str(error))
            return None
        uid = newest.uid or self._identity(raw)[0]
        self._note(uid)
        self._names[uid] = newest.name
        if self._refused and self._refused.pop(uid, None) is not None:
            _log.info("object_mended", object=f"{self._kind.kind} {newest.name}")
        return Update(ObjectKey(self._kind.kind, newest.name), newest)

    def delete(self, raw: object) -> Update:
        """Forget an object. Raises as :meth:`set`."""
        uid, name = self._identity(raw)
        if self._listed is not None:
            self._listed.discard(uid)
        self._names.setdefault(uid, name)
        return self._forget(uid)

    def _note(self, uid: str) -> None:
        if self._listed is not None:
            self._listed.add(uid)

    def _forget(self, uid: str) -> Update:
        self._refused.pop(uid, None)
        return Update(ObjectKey(self._kind.kind, self._names.pop(uid)), None, uid)

    def _refuse(self, uid: str, name: ObjectName, reason: str) -> None:
        if self._refused.get(uid) != reason:
            self._refused[uid] = reason
            _log.error("object_refused", object=f"{self._kind.kind} {name}", reason=reason)

    def _identity(self, raw: object) -> tuple[str, ObjectName]:
        """Return uid and name. An item of a list need not say its kind."""
        try:
            kind = raw.get("kind", self._kind.kind)  # type: ignore[attr-defined]  # whatever it is, see below
            metadata = raw["metadata"]  # type: ignore[index]  # as above
            uid, name, namespace = metadata["uid"], metadata["name"], metadata.get("namespace", "")
        except (AttributeError, KeyError, TypeError) as error:
            msg = f"something that is no {self._kind.kind} with name and uid"
            raise BrokenStreamError(msg) from error
        if kind != self._kind.kind or not all(isinstance(value, str) for value in (uid, name, namespace)) or not uid:
            msg = f"a {kind!r} in place of a {self._kind.kind}, or one without name or uid"
            raise BrokenStreamError(msg)
        return uid, ObjectName(namespace, name)
