# SPDX-License-Identifier: Apache-2.0
"""The header's structs and the Python that packs them say the same: sizes, offsets, byte order, names of constants.

What cffi makes of bpf_src/flow_types.h and map_types.h, which it includes, is the reference; it reads the very headers
that the programs are compiled from.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest
from cffi import FFI
from hypothesis import given, settings
from hypothesis import strategies as st

from kubeproxy_ebpf import map_schema as schema
from kubeproxy_ebpf.layout.changes import ArrayMap
from kubeproxy_ebpf.map_schema import BackendEntry, OriginEntry, ServiceEntry, Set, SettingsEntry
from kubeproxy_ebpf.model.address import Address, Family, Prefix, parse_address, parse_prefix
from kubeproxy_ebpf.model.objects import ObjectName, Protocol
from kubeproxy_ebpf.plan.service_plan import FrontendKey, FrontendKind, ServicePortKey, SetRule, Verdict

HEADER = Path(__file__).parents[2] / "bpf_src" / "flow_types.h"
TYPES = """
typedef uint8_t __u8; typedef uint16_t __u16; typedef uint32_t __u32; typedef int32_t __s32; typedef uint64_t __u64;
typedef int64_t __s64;
typedef uint16_t __be16; typedef uint32_t __be32;
"""
U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
ADDRESSES = st.binary(min_size=16, max_size=16).map(Address)
IPV4 = parse_address("10.96.0.10")
IPV6 = parse_address("fd00:10:96::a")


def preprocessed() -> str:
    """Return the header as declarations alone."""
    command = ["gcc", "-E", "-P", "-DKUBEPROXY_CFFI", str(HEADER)]
    return TYPES + subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def header() -> FFI:
    """Return the header's types."""
    ffi = FFI()
    ffi.cdef(preprocessed())
    return ffi


@pytest.fixture(scope="module")
def constants(header: FFI) -> dict[str, int]:
    """Return every enumeration constant of the header, named or not."""
    library: Any = header.dlopen(None)
    return {name: value for name in dir(library) if isinstance(value := getattr(library, name), int)}


def read(ffi: FFI, struct: str, data: bytes) -> Any:
    """Return packed bytes as the struct that a program sees."""
    assert len(data) == ffi.sizeof(f"struct {struct}"), f"struct {struct}"
    copy = ffi.new(f"struct {struct} *")
    ffi.memmove(copy, data, len(data))
    return copy


def raw(ffi: FFI, field: Any) -> bytes:
    """Return a nested struct or array as bytes."""
    return bytes(ffi.buffer(ffi.addressof(field) if ffi.typeof(field).kind == "struct" else field))


def native(word: int) -> bytes:
    """Return a word as it stands in memory."""
    return word.to_bytes(8, sys.byteorder)


def big_endian(value: int) -> int:
    """Return a 16-bit field of network order as the number it is."""
    return int.from_bytes(value.to_bytes(2, sys.byteorder), "big")


@pytest.mark.parametrize(
    ("struct", "array"),
    [
        ("service", ArrayMap.SERVICES),
        ("slot", ArrayMap.SLOTS),
        ("backend", ArrayMap.BACKENDS),
        ("origin", ArrayMap.ORIGINS),
        ("settings", ArrayMap.SETTINGS),
    ],
)
def test_sizes_of_entries(header: FFI, struct: str, array: ArrayMap) -> None:
    """An entry is as large as its struct, and a multiple of eight: the kernel rounds the stride up to that."""
    assert schema.ENTRY_SIZES[array] == header.sizeof(f"struct {struct}")
    assert schema.ENTRY_SIZES[array] % 8 == 0


@pytest.mark.parametrize(
    ("offset", "struct", "field"),
    [
        (schema.SERVICE_CLUSTER_SET_OFFSET, "service", "cluster_set"),
        (schema.SERVICE_LOCAL_SET_OFFSET, "service", "local_set"),
        (schema.SERVICE_RULES_OFFSET, "service", "affinity_seconds"),
        (schema.BACKEND_STATE_OFFSET, "backend", "generation"),
        (schema.ORIGIN_OWNER_OFFSET, "origin", "service"),
        (schema.SETTINGS_FLAGS_OFFSET, "settings", "flags"),
        (schema.SETTINGS_COUNTS_OFFSET, "settings", "service_cidr_count"),
        (schema.SETTINGS_NETNS_COOKIE_OFFSET, "settings", "host_netns_cookie"),
        (schema.SETTINGS_SOURCES_OFFSET, "settings", "host_source_ipv4"),
        (schema.SETTINGS_PREFIXES_OFFSET, "settings", "service_cidrs"),
    ],
)
def test_offsets_of_published_words(header: FFI, offset: int, struct: str, field: str) -> None:
    """A word that is published starts at its first field, aligned to its size."""
    assert offset == header.offsetof(f"struct {struct}", field)
    assert offset % 8 == 0


def test_constants(constants: dict[str, int]) -> None:
    """Every constant that both sides name has one value."""
    mirrored = {name: value for name, value in vars(schema).items() if name.isupper() and name in constants}
    assert mirrored == {name: constants[name] for name in mirrored}
    prefixes = ("ADDRESS_", "SERVICE_", "BACKEND_", "SETTINGS_", "FLOW_")
    assert {name for name in constants if name.startswith(prefixes)} - {"FLOW_TICK"} <= set(mirrored)
    assert {"MAX_CIDRS", "LAYOUT_VERSION"} <= set(mirrored)


@pytest.mark.parametrize(("prefix", "enum"), [("FRONTEND_", FrontendKind), ("VERDICT_", Verdict), ("SET_", SetRule)])
def test_enumerations(constants: dict[str, int], prefix: str, enum: type[IntEnum]) -> None:
    """Enumerations of the plan have the values that the programs use."""
    named = {name.removeprefix(prefix): value for name, value in constants.items() if name.startswith(prefix)}
    assert {member.name: member.value for member in enum} == {
        name: value for name, value in named.items() if not name.startswith("FORM_")
    }


def test_sources(constants: dict[str, int]) -> None:
    """A source's number is that of the programs."""
    assert {f"SOURCE_{source.name}": number for source, number in schema.SOURCES.items()} == {
        name: value for name, value in constants.items() if name in {"SOURCE_POD", "SOURCE_NODE", "SOURCE_OUTSIDE"}
    }


@pytest.mark.parametrize("cluster", SetRule)
@pytest.mark.parametrize("local", SetRule)
def test_set_rules(cluster: SetRule, local: SetRule) -> None:
    """Both sets' rules stand in a service's flags, beside every other flag."""
    others = schema.SERVICE_CLUSTER_RULE - 1
    flags = cluster * schema.SERVICE_CLUSTER_RULE + local * schema.SERVICE_LOCAL_RULE
    assert schema.set_rules(flags | others) == schema.set_rules(flags) == (cluster, local)


def test_reasons(constants: dict[str, int]) -> None:
    """A reason's number is its place in the tuple of names."""
    assert len(schema.REASONS) == constants["REASON_COUNT"]
    for number, name in enumerate(schema.REASONS):
        assert constants[f"REASON_{name.upper()}"] == number


def test_frontend_key(header: FFI) -> None:
    """Address and port in network order, the padding zero; and back."""
    key = FrontendKey(IPV4, 0x1234, Protocol.UDP)
    packed = schema.pack_frontend_key(key)
    seen = read(header, "frontend_key", packed)
    assert (raw(header, seen.address), big_endian(seen.port), seen.protocol, seen.pad) == (IPV4, 0x1234, 17, 0)
    assert schema.unpack_frontend_key(packed) == key


def test_flow(header: FFI) -> None:
    """What the packet programs write of a connection, as people read it."""
    seen: Any = header.new("struct flow_key *")
    header.memmove(header.addressof(seen.source), IPV4, 16)
    header.memmove(header.addressof(seen.destination), IPV6, 16)
    seen.source_port, seen.destination_port = big_endian(0x1234), big_endian(80)
    seen.protocol, seen.hook = 6, schema.FLOW_EGRESS
    key = schema.unpack_flow_key(bytes(header.buffer(seen)))
    assert key == schema.FlowKey(IPV4, 0x1234, IPV6, 80, 6, schema.FLOW_EGRESS)
    flow: Any = header.new("struct flow *")
    header.memmove(header.addressof(flow.source), IPV6, 16)
    header.memmove(header.addressof(flow.destination), IPV4, 16)
    flow.source_port, flow.destination_port = big_endian(1), big_endian(2)
    flow.backend, flow.generation, flow.service, flow.seen, flow.state = 3, 4, 5, 6, 7
    assert schema.unpack_flow(bytes(header.buffer(flow))) == schema.Flow(IPV6, 1, IPV4, 2, 3, 4, 5, 6, 7)


def test_device(header: FFI) -> None:
    """Addresses by family; none is the unspecified one."""
    seen = read(header, "device", schema.pack_device(IPV4, None))
    assert [bytes(header.buffer(header.addressof(one))) for one in seen.sources] == [IPV4, bytes(16)]
    assert schema.pack_device_key(0x10203) == (0x10203).to_bytes(4, sys.byteorder)


def test_sweep_state(header: FFI) -> None:
    """What a sweep is told, and what it has counted."""
    seen = read(header, "sweep_state", schema.pack_sweep_state(is_crowded=True))
    assert (seen.standing, seen.kept, seen.is_crowded, seen.pad) == (0, 0, 1, 0)
    seen.standing, seen.kept = 7, 8
    assert schema.unpack_sweep_state(bytes(header.buffer(seen))) == schema.SweepState(7, 8)
    assert read(header, "flow_room", schema.pack_flow_room(1 << 20)).entries == 1 << 20


@pytest.mark.parametrize("change", [(18, 1), (19, 1)], ids=["protocol", "padding"])
def test_no_frontend_key(change: tuple[int, int]) -> None:
    """An unknown protocol, or padding that is not zero, is no frontend: packing it again would be another key."""
    packed = bytearray(schema.pack_frontend_key(FrontendKey(IPV4, 80, Protocol.TCP)))
    packed[change[0]] = change[1]
    assert schema.unpack_frontend_key(bytes(packed)) is None


def test_origin(header: FFI) -> None:
    """The key itself, then the owner's word."""
    key = schema.pack_frontend_key(FrontendKey(IPV6, 443, Protocol.TCP))
    packed = schema.pack_origin(OriginEntry(key, 0x01020304, FrontendKind.NODE_PORT))
    seen = read(header, "origin", packed)
    assert (raw(header, seen.frontend), seen.pad, seen.service, seen.kind) == (key, 0, 0x01020304, 4)
    assert packed[schema.ORIGIN_OWNER_OFFSET :] == native(schema.origin_owner_word(0x01020304, 4))
    assert schema.unpack_origin(packed) == (key, 0x01020304, 4)


def test_service(header: FFI) -> None:
    """A set is one word, base first; affinity and flags are one word too."""
    entry = ServiceEntry(Set(0x11223344, 7), Set(0x55667788, 9), 10800, 13)
    packed = schema.pack_service(entry)
    seen = read(header, "service", packed)
    assert (seen.cluster_set >> 32, seen.cluster_set & 0xFFFFFFFF) == (0x11223344, 7)
    assert (seen.local_set >> 32, seen.local_set & 0xFFFFFFFF) == (0x55667788, 9)
    assert (seen.affinity_seconds, seen.flags, seen.pad) == (10800, 13, 0)
    assert packed[16:24] == native(schema.service_rules_word(10800, 13))
    assert schema.unpack_service(packed) == entry


def test_slots(header: FFI) -> None:
    """Consecutive ids, each with its padding."""
    packed = schema.pack_slots((1, 0xFFEEDDCC))
    assert read(header, "slot", packed[8:]).backend == 0xFFEEDDCC
    assert read(header, "slot", packed[8:]).pad == 0
    assert schema.unpack_slots(packed) == [1, 0xFFEEDDCC]
    assert schema.pack_slots(()) == b""


def test_backend(header: FFI) -> None:
    """Address and port in network order; generation, flags and port are one word."""
    entry = BackendEntry(IPV6, 0x1F90, 0x01020304, 3, 0x0A0B0C0D, schema.BACKEND_ALLOCATED | schema.BACKEND_LOCAL)
    packed = schema.pack_backend(entry)
    seen = read(header, "backend", packed)
    assert (raw(header, seen.address), seen.service, seen.node) == (IPV6, 0x01020304, 3)
    assert (seen.generation, seen.flags, big_endian(seen.port)) == (0x0A0B0C0D, 9, 0x1F90)
    assert packed[24:] == native(schema.backend_state_word(0x0A0B0C0D, 9, 0x1F90))
    assert list(schema.unpack_backends(packed * 2)) == [entry, entry]


def test_service_name(header: FFI) -> None:
    """Names are padded with NUL."""
    key = ServicePortKey(ObjectName("kube-system", "dns"), "dns-tcp", Protocol.TCP, Family.IPV6)
    seen = read(header, "service_name", schema.pack_name(key))
    assert header.string(seen.service_namespace) == b"kube-system"
    assert (header.string(seen.name), header.string(seen.port)) == (b"dns", b"dns-tcp")
    assert (seen.family, seen.protocol, bytes(header.buffer(seen.pad))) == (6, 6, bytes(6))
    assert schema.unpack_name(schema.pack_name(key)) == key


def test_longest_names() -> None:
    """64 bytes fit, as no NUL must end them; one more is an error that says so."""
    key = ServicePortKey(ObjectName("n" * 63, "s" * 64), "", Protocol.SCTP, Family.IPV4)
    assert schema.unpack_name(schema.pack_name(key)) == key
    with pytest.raises(schema.NameTooLongError, match="more than 64 bytes"):
        schema.pack_name(key._replace(port="p" * 65))


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, 0xFF), (64, 0), (193, 1), (192, 5), (63, 1), (194, 1)],
    ids=["no text", "no name", "protocol", "family", "after the NUL", "padding"],
)
def test_no_service_name(at: int, value: int) -> None:
    """What was not packed here is no name."""
    packed = bytearray(schema.pack_name(ServicePortKey(ObjectName("a", "b"), "", Protocol.TCP, Family.IPV4)))
    packed[at] = value
    assert schema.unpack_name(bytes(packed)) is None


def test_source_range(header: FFI) -> None:
    """The prefix length counts the service's 32 bits, and an IPv4 prefix the 96 before it."""
    prefix = parse_prefix("203.0.113.0/24")
    packed = schema.pack_source_range(5, prefix)
    seen = read(header, "source_range_key", packed)
    assert (seen.prefix_length, seen.service, raw(header, seen.address)) == (32 + 96 + 24, 5, prefix.network)
    assert schema.unpack_source_range(packed) == (5, prefix)


def test_affinity(header: FFI) -> None:
    """The client is an address, or a cookie in host order after eight zero bytes."""
    key: Any = header.new("struct affinity_key *", {"service": 9})
    value = header.new("struct affinity_record *", {"backend": 4, "generation": 2, "last_connection": 2**40})
    header.memmove(header.addressof(key.client), IPV4, 16)
    entry = schema.unpack_affinity(bytes(header.buffer(key)), bytes(header.buffer(value)))
    assert entry == (9, IPV4, 4, 2, 2**40)
    header.memmove(header.addressof(key.client), bytes(8) + native(77), 16)
    assert schema.unpack_affinity(bytes(header.buffer(key)), bytes(header.buffer(value))).client == 77


def test_settings(header: FFI) -> None:
    """What the writers' pieces put together is what a program reads, and what unpacking gives."""
    entry = SettingsEntry(
        flags=3,
        service_cidrs=(parse_prefix("10.96.0.0/12"), parse_prefix("fd00:10:96::/108")),
        excluded_cidrs=(parse_prefix("0.0.0.0/0"),),
        host_netns_cookie=2**50,
        host_source_ipv4=IPV4,
        host_source_ipv6=None,
    )
    packed = (
        native(schema.settings_flags_word(3))
        + native(schema.prefix_counts_word(2, 1))
        + native(2**50)
        + schema.pack_sources(IPV4, None)
        + schema.pack_prefixes(entry.service_cidrs)
        + schema.pack_prefixes(entry.excluded_cidrs)
    )
    seen = read(header, "settings", packed)
    assert (seen.flags, seen.service_cidr_count, seen.excluded_cidr_count) == (3, 2, 1)
    assert (seen.host_netns_cookie, raw(header, seen.host_source_ipv4)) == (2**50, IPV4)
    assert raw(header, seen.service_cidrs[0].mask) == b"\xff" * 13 + b"\xf0\0\0"
    assert raw(header, seen.excluded_cidrs[0].mask) == b"\xff" * 12 + bytes(4)
    assert schema.unpack_settings(packed) == entry


def test_event(header: FFI) -> None:
    """Every field of an event comes from its place."""
    event: Any = header.new("struct event *")
    event.time, event.socket_cookie, event.netns_cookie = 1, 2, 3
    for field, address in ((event.source, IPV6), (event.destination, IPV4), (event.endpoint, IPV6)):
        header.memmove(header.addressof(field), address, 16)
    event.source_port, event.destination_port, event.endpoint_port = map(big_endian, (40000, 80, 8080))
    event.protocol, event.verdict, event.reason, event.service, event.backend = 6, 1, 2, 3, 4
    event.device, event.command = 5, b"curl"
    fields = (1, 2, 3, IPV6, 40000, IPV4, 80, IPV6, 8080, 6, 1, 2, 3, 4, 5, "curl")
    assert schema.unpack_event(bytes(header.buffer(event))) == (*fields, None)
    about_packet: Any = header.new("struct packet_event *")
    header.memmove(header.addressof(about_packet.event), event, header.sizeof("struct event"))
    about_packet.length, about_packet.copied, about_packet.network = 1500, 20, 14
    about_packet.packet = bytes(range(1, 21))
    copy = schema.PacketCopy(1500, has_ethernet=True, data=bytes(range(1, 21)))
    assert schema.unpack_event(bytes(header.buffer(about_packet))) == (*fields, copy)


ROUND_TRIPS: list[tuple[st.SearchStrategy, Callable[[Any], bytes], Callable[[bytes], Any]]] = [
    (
        st.builds(FrontendKey, ADDRESSES, U16, st.sampled_from(Protocol)),
        schema.pack_frontend_key,
        schema.unpack_frontend_key,
    ),
    (st.builds(OriginEntry, st.binary(min_size=20, max_size=20), U32, U32), schema.pack_origin, schema.unpack_origin),
    (
        st.builds(ServiceEntry, st.builds(Set, U32, U32), st.builds(Set, U32, U32), U32, U32),
        schema.pack_service,
        schema.unpack_service,
    ),
    (st.lists(U32, max_size=9).map(tuple), schema.pack_slots, lambda data: tuple(schema.unpack_slots(data))),
    (
        st.builds(BackendEntry, ADDRESSES, U16, U32, U32, U32, U16),
        schema.pack_backend,
        lambda data: next(schema.unpack_backends(data)),
    ),
    (
        st.tuples(U32, st.builds(Prefix, ADDRESSES, st.integers(0, 128))),
        lambda pair: schema.pack_source_range(*pair),
        schema.unpack_source_range,
    ),
    (U32, schema.pack_u32, schema.unpack_u32),
]


@pytest.mark.parametrize(("values", "pack", "unpack"), ROUND_TRIPS)
def test_round_trips(values: st.SearchStrategy, pack: Callable[[Any], bytes], unpack: Callable[[bytes], Any]) -> None:
    """Whatever is packed comes back."""

    @settings(deadline=None)
    @given(values)
    def comes_back(value: object) -> None:
        assert unpack(pack(value)) == value

    comes_back()


@settings(deadline=None)
@given(st.binary(min_size=200, max_size=200), st.binary(min_size=20, max_size=20))
def test_names_and_keys_of_any_bytes(name: bytes, key: bytes) -> None:
    """Any bytes are either refused, or packed again to the same."""
    named, frontend = schema.unpack_name(name), schema.unpack_frontend_key(key)
    assert named is None or schema.pack_name(named) == name
    assert frontend is None or schema.pack_frontend_key(frontend) == key
