# SPDX-License-Identifier: Apache-2.0
"""The settings of this node to changes of the one entry of ``settings``."""

from __future__ import annotations

from collections.abc import Sequence

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.layout.changes import ArrayMap, Change, Phase, PublishWord
from kubeproxy_ebpf.map_schema import SettingsEntry
from kubeproxy_ebpf.model.address import Prefix

LISTENING = schema.SETTINGS_LISTENING
"""The flag that belongs to whoever reads events; it is left as it is."""


def differs_in_prefixes(old: SettingsEntry, new: SettingsEntry) -> bool:
    """Whether the lists of prefixes differ: then readers of the old ones must be gone before they are overwritten."""
    return (old.service_cidrs, old.excluded_cidrs) != (new.service_cidrs, new.excluded_cidrs)


def withdraw_prefixes(old: SettingsEntry, new: SettingsEntry) -> tuple[Change, ...]:
    """Return the changes after which, and after a grace period, nobody reads a prefix that is to be overwritten.

    The lists end where they begin to differ: what both have in common is in effect all the time.
    """
    counts = (
        _common_length(old.service_cidrs, new.service_cidrs),
        _common_length(old.excluded_cidrs, new.excluded_cidrs),
    )
    if counts == (len(old.service_cidrs), len(old.excluded_cidrs)):
        return ()
    return (_publish(schema.SETTINGS_COUNTS_OFFSET, schema.prefix_counts_word(*counts)),)


def _common_length(old: Sequence[Prefix], new: Sequence[Prefix]) -> int:
    """Return how many prefixes both lists begin with."""
    return next(
        (n for n, (one, other) in enumerate(zip(old, new, strict=False)) if one != other), min(len(old), len(new))
    )


def has_had_prefixes(data: bytes | memoryview) -> bool:
    """Whether an entry of ``settings`` ever had prefixes: some reader may still be at them, whatever the counts say."""
    return any(data[schema.SETTINGS_PREFIXES_OFFSET : schema.SETTINGS_SIZE])


def write_settings(old: SettingsEntry, new: SettingsEntry) -> tuple[Change, ...]:
    """Return the changes from one entry to another, word by word, but for the counts of the prefixes."""
    changes: list[Change] = []
    if (old.flags ^ new.flags) & ~LISTENING:
        flags = new.flags & ~LISTENING | old.flags & LISTENING
        changes.append(_publish(schema.SETTINGS_FLAGS_OFFSET, schema.settings_flags_word(flags)))
    if old.host_netns_cookie != new.host_netns_cookie:
        changes.append(_publish(schema.SETTINGS_NETNS_COOKIE_OFFSET, new.host_netns_cookie))
    if (old.host_source_ipv4, old.host_source_ipv6) != (new.host_source_ipv4, new.host_source_ipv6):
        sources = schema.pack_sources(new.host_source_ipv4, new.host_source_ipv6)
        changes += _publish_words(schema.SETTINGS_SOURCES_OFFSET, sources)
    if differs_in_prefixes(old, new):
        prefixes = schema.pack_prefixes(new.service_cidrs) + schema.pack_prefixes(new.excluded_cidrs)
        changes += _publish_words(schema.SETTINGS_PREFIXES_OFFSET, prefixes)
    return tuple(changes)


def publish_prefixes(new: SettingsEntry) -> tuple[Change, ...]:
    """Return the change that puts written prefixes into effect, to be made a grace period after they were written.

    Programs read the counts and then the prefixes, but a processor may read ahead (arm64): nothing else makes sure
    that a reader of the new counts does not find what was there before. Where that was nothing, it holds everything.
    """
    counts = schema.prefix_counts_word(len(new.service_cidrs), len(new.excluded_cidrs))
    return (_publish(schema.SETTINGS_COUNTS_OFFSET, counts),)


def _publish(offset: int, word: int) -> PublishWord:
    return PublishWord(Phase.PUBLISH, ArrayMap.SETTINGS, 0, offset, word)


def _publish_words(offset: int, data: bytes) -> Sequence[PublishWord]:
    return [_publish(offset + start, schema.word_of(data[start : start + 8])) for start in range(0, len(data), 8)]
