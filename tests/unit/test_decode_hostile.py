# SPDX-License-Identifier: Apache-2.0
"""Hostile raw objects: whatever comes, there is a model within bounds or an ObjectError, and nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubeproxy_ebpf.decode import (
    ObjectError,
    decode_endpoint_slice,
    decode_node,
    decode_service,
    decode_service_cidr,
)
from kubeproxy_ebpf.decode.endpoint_slice import _usual_endpoint, careful_endpoint
from kubeproxy_ebpf.model.address import Family, parse_address
from kubeproxy_ebpf.model.objects import EndpointSlice, Ignored, Service
from kubeproxy_ebpf.model.problems import MOST_PROBLEMS
from tests.raw_objects import NODE, SERVICE, SERVICE_CIDR, SLICE, changed

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)
DECODERS = {
    "Service": decode_service,
    "EndpointSlice": decode_endpoint_slice,
    "Node": decode_node,
    "ServiceCIDR": decode_service_cidr,
}


def check(kind: str, raw: object) -> None:
    """Decode, and look at whatever comes out: the model or an error, within bounds and fit to be printed."""
    try:
        decoded = DECODERS[kind](raw)
    except ObjectError as error:
        check_sentence(str(error), kind)
        return
    if isinstance(decoded, Ignored):
        return
    assert len(decoded.problems) <= MOST_PROBLEMS + 1
    for problem in decoded.problems:
        check_sentence(problem, kind)
    if isinstance(decoded, Service):
        assert 1 <= len(decoded.cluster_ips) <= 2
        assert all(0 < port.port < 65536 and 0 <= port.node_port < 65536 for port in decoded.ports)
        assert all(len(name.encode()) <= 63 for name in (*decoded.name, *(port.name for port in decoded.ports)))
        assert 0 <= decoded.affinity_seconds <= 86400
    if isinstance(decoded, EndpointSlice):
        assert all(0 < port.port < 65536 for port in decoded.ports)
        assert all(len(endpoint.address) == 16 for endpoint in decoded.endpoints)
        assert len(decoded.service.name.encode()) <= 63


def check_sentence(sentence: str, kind: str) -> None:
    """Check that a sentence names the object, is short, and is safe on a terminal."""
    assert sentence.startswith(f"{kind} ")
    assert len(sentence) < 900
    assert sentence.isprintable()


@pytest.mark.parametrize("kind", DECODERS)
@settings(deadline=None)
@given(raw=ANY_JSON)
def test_any_json(kind: str, raw: object) -> None:
    """Whatever JSON comes, it is decoded or refused by ObjectError."""
    check(kind, raw)


def paths_of(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the paths of all values within a raw object, its own included."""
    inner: list[tuple[str | int, ...]] = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        inner += paths_of(child, (*path, key))
    return inner


def replaced(value: Any, path: tuple[str | int, ...], new: object) -> Any:
    """Return a copy with the value at a path replaced."""
    if not path:
        return new
    copied = copy.copy(value)
    copied[path[0]] = replaced(value[path[0]], path[1:], new)
    return copied


@pytest.mark.parametrize("raw", [SERVICE, SLICE, NODE, SERVICE_CIDR], ids=lambda raw: raw["kind"])
@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_mutations_of_a_valid_object(raw: dict[str, Any], data: st.DataObject) -> None:
    """A valid object with any two of its values replaced by anything is decoded or refused by ObjectError."""
    mutated: Any = raw
    for _ in range(2):
        path = data.draw(st.sampled_from(paths_of(mutated)), label="path")
        mutated = replaced(mutated, path, data.draw(ANY_JSON, label="value"))
    check(raw["kind"], mutated)


@settings(deadline=None, max_examples=500)
@given(data=st.data())
def test_the_quick_way_reads_the_same(data: st.DataObject) -> None:
    """An endpoint that is read the quick way is what careful reading makes of it."""
    usual = {
        "addresses": ["10.0.0.1"],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "nodeName": "n",
    }
    assert _usual_endpoint(usual, Family.IPV4) is not None
    path = data.draw(st.sampled_from(paths_of(usual)), label="path")
    odd = st.sampled_from(["127.0.0.1", "010.0.0.1", "10.0.0.256", "224.0.0.1", "169.254.0.1", "N", 0, 1]) | ANY_JSON
    mutated = replaced(usual, path, data.draw(odd, label="value"))
    quick = _usual_endpoint(mutated, Family.IPV4)
    if quick is not None:
        assert quick == careful_endpoint(mutated, Family.IPV4)


@settings(deadline=None, max_examples=300)
@given(text=st.text(max_size=50) | st.from_regex(r"[0-9a-f.:%/]{1,45}") | st.ip_addresses().map(str))
def test_any_address_text(text: str) -> None:
    """Any text is an address of the slice's family or a problem, and valid addresses mean the same as elsewhere."""
    decoded = decode_endpoint_slice(changed(SLICE, "endpoints.0.addresses", [text]))
    assert isinstance(decoded, EndpointSlice)
    assert bool(decoded.endpoints) is not bool(decoded.problems)
    try:
        expected = parse_address(text)
    except ValueError:
        return
    assert all(endpoint.address == expected for endpoint in decoded.endpoints)
