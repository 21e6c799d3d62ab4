# SPDX-License-Identifier: Apache-2.0
"""Writes one service port into a draft: its backends, sets, service, frontends and source ranges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.layout.changes import ArrayMap, HashMap, Phase
from kubeproxy_ebpf.layout.compare import PortDiff, is_there, service_flags
from kubeproxy_ebpf.layout.contents import ONE, WANTED, Contents
from kubeproxy_ebpf.layout.draft import Draft
from kubeproxy_ebpf.layout.ids import runs
from kubeproxy_ebpf.layout.states import NO_SET, Owner, PlacedSet, PortState
from kubeproxy_ebpf.map_schema import ServiceEntry, Set

_SIZE = schema.BACKEND_SIZE
_OUT_OF_SETS = ~(schema.BACKEND_IN_CLUSTER_SET | schema.BACKEND_IN_LOCAL_SET)


class _Backends(NamedTuple):
    ids: tuple[int, ...]
    entries: bytes
    by_endpoint: dict[bytes, int]


def write_port(contents: Contents, draft: Draft, diff: PortDiff, ranges: Iterator[Set]) -> PortState:
    """Write what a plan wants of a service port, and return it: the same object if the maps say it already.

    ``ranges`` are as long as the diff asked for, and taken already.
    """
    if diff.old is not None and is_there(diff, diff.old, contents.owners):
        return diff.old
    old = diff.old or PortState(diff.plan.key, contents.services.take(1)[0])
    backends = _write_backends(contents, draft, diff, old)
    cluster = _write_set(draft, old.cluster, diff.cluster, backends, ranges)
    local = _write_set(draft, old.local, diff.local, backends, ranges)
    new = PortState(
        key=diff.plan.key,
        service=old.service,
        affinity_seconds=diff.plan.affinity_seconds,
        flags=service_flags(diff.plan),
        cluster=cluster,
        local=local,
        backends=backends.ids,
        entries=backends.entries,
        frontends=tuple(diff.frontends),
        source_ranges=_guard(contents, draft, diff, old.service),
    )
    if diff.old is None:
        _write_service(contents, draft, new, diff.name)
    else:
        _publish_service(draft, old, new)
    for key, kind in diff.frontends.items():
        _expose(contents, draft, key, new.service, kind)
    contents.ports[new.service] = new
    return new


def let_go(contents: Contents, draft: Draft, old: PortState, new: PortState | None) -> None:
    """Take away the frontends and source ranges that a service port has no more; ``new`` is None if it is gone."""
    kept = frozenset(new.frontends) if new else frozenset()
    for key in old.frontends:
        owner = contents.owners.get(key)
        if key not in kept and owner is not None and owner.service == old.service:
            del contents.owners[key]
            draft.delete(Phase.WITHDRAW, HashMap.FRONTENDS, key)
            draft.publish(Phase.RETIRE, ArrayMap.ORIGINS, owner.origin, schema.ORIGIN_OWNER_OFFSET, 0)
            draft.retired.origins.append(owner.origin)
    for key in old.source_ranges - new.source_ranges if new else old.source_ranges:
        contents.source_ranges[key] = contents.epochs.number
        draft.retired.source_ranges.append(key)


def remove_port(contents: Contents, draft: Draft, old: PortState) -> None:
    """Take a service port away. Its entry stays as it is, for readers that are still on their way."""
    let_go(contents, draft, old, None)
    for position, backend in enumerate(old.backends):
        _retire(contents, draft, backend, old.entries[position * _SIZE : (position + 1) * _SIZE])
    draft.retired.ranges += [placed.place for placed in (old.cluster, old.local) if placed.backends]
    draft.retired.services.append(old.service)
    del contents.ports[old.service]


def _write_backends(contents: Contents, draft: Draft, diff: PortDiff, old: PortState) -> _Backends:
    kept = _keep_backends(contents, draft, diff, old) if diff.known else _Backends((), b"", {})
    new = [endpoint for endpoint in diff.flags if endpoint not in diff.known] if diff.known else list(diff.flags)
    if not new:
        return kept
    ids = contents.take_backends(len(new))
    generations = [contents.generations[backend] for backend in ids]
    entries = b"".join(schema.pack_backends(new, old.service, generations, map(diff.flags.__getitem__, new)))
    for start, end in runs(ids):
        draft.write(ArrayMap.BACKENDS, ids[start], end - start, entries[start * _SIZE : end * _SIZE])
    kept.by_endpoint.update(zip(new, ids, strict=True))
    return _Backends(kept.ids + tuple(ids), kept.entries + entries, kept.by_endpoint)


def _keep_backends(contents: Contents, draft: Draft, diff: PortDiff, old: PortState) -> _Backends:
    """Publish what changed of backends that stay, and retire those that go."""
    by_endpoint: dict[bytes, int] = {}
    stale = list(diff.surplus)
    entries: list[bytes] = []
    for endpoint, (position, flags) in diff.known.items():
        backend, entry = old.backends[position], old.entries[position * _SIZE : (position + 1) * _SIZE]
        wanted = diff.flags.get(endpoint)
        if wanted is None:
            stale.append(position)
            continue
        if flags != wanted:
            found, generation = entry, contents.generations[backend]
            (entry,) = schema.pack_backends([endpoint], old.service, [generation], [wanted])
            for offset, word in schema.differing_words(found, entry):
                draft.publish(Phase.PUBLISH, ArrayMap.BACKENDS, backend, offset, word)
        by_endpoint[endpoint] = backend
        entries.append(entry)
    for position in stale:
        _retire(contents, draft, old.backends[position], old.entries[position * _SIZE : (position + 1) * _SIZE])
    return _Backends(tuple(by_endpoint.values()), b"".join(entries), by_endpoint)


def _retire(contents: Contents, draft: Draft, backend: int, entry: bytes) -> None:
    """Make whoever remembers a backend forget it. Readers of a set that it was in still find it."""
    found = next(schema.unpack_backends(entry))
    word = schema.backend_state_word(contents.move_on(backend), found.flags & _OUT_OF_SETS, found.port)
    draft.publish(Phase.RETIRE, ArrayMap.BACKENDS, backend, schema.BACKEND_STATE_OFFSET, word)
    draft.retired.backends.append(backend)


def _write_set(
    draft: Draft, old: PlacedSet, members: list[bytes] | None, backends: _Backends, ranges: Iterator[Set]
) -> PlacedSet:
    if members is None:
        return old
    if old.backends:
        draft.retired.ranges.append(old.place)
    if not members:
        return NO_SET
    place = next(ranges)
    ids = tuple([backends.by_endpoint[endpoint] for endpoint in members])
    draft.write(ArrayMap.SLOTS, place.base, place.length, schema.pack_slots(ids))
    return PlacedSet(place, ids)


def _write_service(contents: Contents, draft: Draft, new: PortState, name: bytes) -> None:
    entry = ServiceEntry(new.cluster.place, new.local.place, new.affinity_seconds, new.flags)
    draft.write(ArrayMap.SERVICES, new.service, 1, schema.pack_service(entry))
    key = schema.pack_u32(new.service)
    draft.insert(Phase.GUARD, HashMap.SERVICE_NAMES, key, name)
    contents.present[HashMap.SERVICE_NAMES].add(key)


def _publish_service(draft: Draft, old: PortState, new: PortState) -> None:
    for offset, before, after in (
        (schema.SERVICE_CLUSTER_SET_OFFSET, old.cluster.place, new.cluster.place),
        (schema.SERVICE_LOCAL_SET_OFFSET, old.local.place, new.local.place),
    ):
        if before != after:
            phase = Phase.PUBLISH if after.length else Phase.EMPTY
            draft.publish(phase, ArrayMap.SERVICES, new.service, offset, after.word)
    if (old.affinity_seconds, old.flags) != (new.affinity_seconds, new.flags):
        word = schema.service_rules_word(new.affinity_seconds, new.flags)
        draft.publish(Phase.RULE, ArrayMap.SERVICES, new.service, schema.SERVICE_RULES_OFFSET, word)


def _guard(contents: Contents, draft: Draft, diff: PortDiff, service: int) -> frozenset[bytes]:
    if not diff.plan.source_ranges:
        return frozenset()
    keys = frozenset(schema.pack_source_range(service, prefix) for prefix in diff.plan.source_ranges)
    for key in keys:
        if key not in contents.source_ranges:
            draft.insert(Phase.GUARD, HashMap.SOURCE_RANGES, key, ONE)
        contents.source_ranges[key] = WANTED
    return keys


def _expose(contents: Contents, draft: Draft, key: bytes, service: int, kind: int) -> None:
    """Lead a frontend here. One that leads elsewhere changes hands in one store, and keeps its origin."""
    owner = contents.owners.get(key)
    if owner is None:
        (origin,) = contents.origins.take(1)
        draft.write(ArrayMap.ORIGINS, origin, 1, schema.pack_origin(schema.OriginEntry(key, service, kind)))
        draft.insert(Phase.EXPOSE, HashMap.FRONTENDS, key, schema.pack_u32(origin))
        contents.present[HashMap.FRONTENDS].add(key)
        contents.owners[key] = Owner(origin, service, kind)
    elif (owner.service, owner.kind) != (service, kind):
        word = schema.origin_owner_word(service, kind)
        draft.publish(Phase.EXPOSE, ArrayMap.ORIGINS, owner.origin, schema.ORIGIN_OWNER_OFFSET, word)
        contents.owners[key] = Owner(owner.origin, service, kind)
