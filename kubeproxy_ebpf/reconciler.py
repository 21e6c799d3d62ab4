# SPDX-License-Identifier: Apache-2.0
"""Brings the maps to what the plans say: applies changes, tries again what failed, audits what is there.

Level-based. Whoever learns of a change hands it to :class:`~kubeproxy_ebpf.plan.cluster.ClusterState`;
:meth:`Reconciler.sync` drains the Services that it touched, in one batch. A Service that cannot be served is an error
on that Service: it keeps what it has and waits for another try, and nothing else is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import structlog

from kubeproxy_ebpf import map_schema
from kubeproxy_ebpf.backoff import Backoff
from kubeproxy_ebpf.garbage import collecting_later
from kubeproxy_ebpf.layout.audit import Audit
from kubeproxy_ebpf.layout.changes import ArrayMap
from kubeproxy_ebpf.layout.errors import LayoutError
from kubeproxy_ebpf.layout.layout import Batch, Layout
from kubeproxy_ebpf.layout.node_settings import (
    differs_in_prefixes,
    has_had_prefixes,
    publish_prefixes,
    withdraw_prefixes,
    write_settings,
)
from kubeproxy_ebpf.map_schema import SettingsEntry
from kubeproxy_ebpf.map_store import MapStore
from kubeproxy_ebpf.model.objects import ObjectName
from kubeproxy_ebpf.plan.cluster import ClusterState
from kubeproxy_ebpf.plan.service_plan import ServicePlan
from kubeproxy_ebpf.writer import FailedWrite, apply_changes

MOST_AT_ONCE = 1000
"""Services in one batch: enough for the kernel to take keys at full speed, few enough to keep the plans small."""

_log = structlog.get_logger(__name__)


class SyncResult(NamedTuple):
    """What one round did."""

    services: int
    """Services that were planned."""
    writes: int
    """Changes made to maps."""


class Reconciler:
    """Owns the layout and the writing side of the maps. Not safe for threads."""

    def __init__(
        self,
        *,
        cluster: ClusterState,
        layout: Layout,
        store: MapStore,
        clock: Callable[[], float],
        start_grace_period: Callable[[], None],
        report: Callable[[ObjectName, str, str], None] | None = None,
    ) -> None:
        """Start with nothing done. ``start_grace_period`` must lead to one call of :meth:`readers_are_gone`.

        ``report`` is told what is wrong with a Service: its name, a word for the kind of problem, and a sentence.
        """
        self._cluster = cluster
        self._layout = layout
        self._store = store
        self._audit = Audit(layout, store)
        self._start_grace_period = start_grace_period
        self._tell = report or _tell_nobody
        self._retries: Backoff[ObjectName] = Backoff(clock)
        self._problems: dict[ObjectName, tuple[str, ...]] = {}
        self._refusals: dict[ObjectName, str] = {}
        self._grace_period_runs = False
        self._pruned = False

    def sync(self, *, is_complete: bool = True) -> SyncResult:
        """Plan and write what changed since the last call, and what is due for another try.

        What an agent before this one left of Services that nobody knows goes in the first round in which the
        cluster state ``is_complete``: until then they may just not have been read.
        """
        names = tuple(dict.fromkeys((*self._cluster.take_dirty(), *self._retries.due())))
        with collecting_later() if len(names) > MOST_AT_ONCE else nullcontext():
            parts = range(0, len(names), MOST_AT_ONCE)
            writes = sum(self._write(names[start : start + MOST_AT_ONCE]) for start in parts)
        if is_complete and not self._pruned:
            self._pruned = True
            writes += self._apply(self._layout.prune(frozenset(self._cluster.services)), ())
        self._rest()
        return SyncResult(len(names), writes)

    def _write(self, names: Sequence[ObjectName]) -> int:
        """Plan and write some Services in one batch."""
        plans = {name: self._cluster.plan(name) for name in names}
        for name, plan in plans.items():
            self._report(name, plan)
        return self._apply(self._layout.prepare(plans), names)

    def apply_settings(self, settings: SettingsEntry) -> int:
        """Bring the map ``settings`` to these; return how many writes it took. May block for milliseconds."""
        data = self._store.read(ArrayMap.SETTINGS)
        present = map_schema.unpack_settings(data)
        differs = differs_in_prefixes(present, settings)
        if differs and has_had_prefixes(data):
            apply_changes(self._store, withdraw_prefixes(present, settings))
            self._store.wait_for_readers()
        changes = write_settings(present, settings)
        apply_changes(self._store, changes)
        if differs:
            self._store.wait_for_readers()
            published = publish_prefixes(settings)
            apply_changes(self._store, published)
            changes += published
        return len(changes)

    def audit_parts(self) -> Iterator[int]:
        """Compare the maps with what they should hold and repair them; yield the number of repairs of each part.

        Between two parts there is time for more urgent things.
        """
        for repairs in self._audit.parts():
            if repairs:
                failed = apply_changes(self._store, repairs)
                maps = sorted({change.map.value for change in repairs})
                _log.warning("maps_repaired", repairs=len(repairs), failed=len(failed), maps=maps)
            yield len(repairs)

    def readers_are_gone(self) -> None:
        """Take back what was out of use when the grace period began that has now passed."""
        self._apply(self._layout.grace_passed(), ())
        self._grace_period_runs = False
        self._rest()

    def seconds_to_next(self) -> float | None:
        """Return when :meth:`sync` has something to try again; None: never by itself."""
        return self._retries.seconds_to_next()

    def _apply(self, batch: Batch, names: Iterable[ObjectName]) -> int:
        """Write a batch, and settle who has to be tried again."""
        failed = apply_changes(self._store, batch.changes)
        again = self._layout.commit(batch, [failure.change for failure in failed])
        for failure in failed:
            _log_failure(failure)
        for error in batch.errors:
            self._log_refusal(error)
            again.add(error.service)
        for name in names:
            if name not in again and name in self._retries:
                self._retries.succeeded(name)
                self._refusals.pop(name, None)
                if self._cluster.service(name) is not None:
                    _log.info("service_recovered", service=str(name))
        for name in again:
            self._retries.failed(name)
        return len(batch.changes)

    def _rest(self) -> None:
        """Between rounds: let what is out of use come back, and make room where it is in pieces."""
        if self._grace_period_runs:
            return
        moves = self._layout.defragment()
        if moves.changes:
            _log.info("slots_defragmented", moves=len(moves.moves))
            self._apply(moves, ())
        if self._layout.close_epoch():
            self._grace_period_runs = True
            self._start_grace_period()

    def _report(self, name: ObjectName, plan: ServicePlan | None) -> None:
        """Log what cannot be served of a Service, once."""
        problems = plan.problems if plan else ()
        if problems == self._problems.get(name, ()):
            return
        if problems:
            self._problems[name] = problems
        else:
            del self._problems[name]
            _log.info("service_problems_gone", service=str(name))
        for problem in problems:
            _log.warning("service_problem", service=str(name), problem=problem)
            self._tell(name, "ServiceProblem", problem)

    def _log_refusal(self, error: LayoutError) -> None:
        """Log why a Service is not served, once per reason: another map that is full needs another remedy."""
        reason = str(error)
        if self._refusals.get(error.service) != reason:
            self._refusals[error.service] = reason
            _log.error("service_not_served", service=str(error.service), map=error.map_name, reason=reason)
            self._tell(error.service, "ServiceNotServed", reason)


def _tell_nobody(_name: ObjectName, _reason: str, _note: str) -> None:
    """Leave it to the log."""


def _log_failure(failure: FailedWrite) -> None:
    error = failure.error
    _log.error("map_write_failed", map=error.map_name, key=error.key.hex(), errno=error.error_number, reason=str(error))
