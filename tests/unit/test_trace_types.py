# SPDX-License-Identifier: Apache-2.0
"""What the trace program is asked and answers: the header's structs and the Python that packs them say the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cffi import FFI

from kubeproxy_ebpf.datapath.load_beside import HEADER
from kubeproxy_ebpf.datapath.trace import ANSWER, QUESTION, Answer, Question
from kubeproxy_ebpf.map_schema import SOURCES, Set, pack_frontend_key
from kubeproxy_ebpf.model.address import parse_address
from kubeproxy_ebpf.model.objects import Protocol
from kubeproxy_ebpf.plan.service_plan import FrontendKey, Source, Verdict

TRACE_TYPES = Path(__file__).parents[2] / "bpf_src" / "trace_types.h"
TYPES = """
typedef uint8_t __u8; typedef uint16_t __u16; typedef uint32_t __u32; typedef uint64_t __u64;
typedef uint16_t __be16; typedef uint32_t __be32;
"""
CLIENT = parse_address("203.0.113.5")
WEB = FrontendKey(parse_address("10.96.0.10"), 80, Protocol.TCP)


@pytest.fixture(scope="module")
def header() -> FFI:
    """Return the header's types."""
    command = ["gcc", "-E", "-P", "-DKUBEPROXY_CFFI", str(TRACE_TYPES)]
    ffi = FFI()
    ffi.cdef(TYPES + subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return ffi


def test_question(header: FFI) -> None:
    """A question lies behind the header of the packet, field by field where the program reads it."""
    packet = Question(WEB, Source.OUTSIDE, CLIENT).pack(bytes(range(16)), 7)
    assert len(packet) == len(HEADER) + header.sizeof("struct trace_question") + header.sizeof("struct trace_answer")
    library: Any = header.dlopen(None)
    assert len(HEADER) == library.TRACE_OFFSET
    question: Any = header.from_buffer("struct trace_question *", packet[len(HEADER) :][: QUESTION.size])
    assert bytes(header.buffer(header.addressof(question.destination))) == pack_frontend_key(WEB)
    assert getattr(question, "from") == SOURCES[Source.OUTSIDE]
    assert bytes(header.buffer(header.addressof(question.source))) == CLIENT
    assert bytes(header.buffer(header.addressof(question.affinity_client))) == bytes(range(16))
    assert question.number == 7


def test_answer(header: FFI) -> None:
    """Each field of an answer is read where the program writes it."""
    answer = header.new(
        "struct trace_answer *",
        {
            "set": 5 << 32 | 3,
            "service": 11,
            "service_flags": 12,
            "frontend_kind": 13,
            "address_kinds": 14,
            "affinity_seconds": 15,
            "backend": 16,
            "verdict": 3,
            "reason": 8,
            "is_local_set": 1,
            "by_affinity": 0,
            "masquerade": 1,
        },
    )
    assert header.sizeof("struct trace_answer") == ANSWER.size
    assert Answer.unpack(bytes(header.buffer(answer))) == Answer(
        set=Set(5, 3),
        service=11,
        service_flags=12,
        frontend_kind=13,
        address_kinds=14,
        affinity_seconds=15,
        backend=16,
        verdict=Verdict.DROP,
        reason=8,
        is_local_set=True,
        by_affinity=False,
        masquerade=True,
    )


@pytest.mark.parametrize(
    ("question", "client"),
    [
        (Question(WEB, Source.OUTSIDE, CLIENT), CLIENT),
        (Question(WEB, Source.OUTSIDE), bytes(16)),
        (Question(WEB, Source.NODE, CLIENT), bytes(8) + (9).to_bytes(8, sys.byteorder)),
        (Question(WEB, Source.POD, CLIENT), bytes(16)),
        (Question(WEB, Source.POD, CLIENT, netns=42), bytes(8) + (42).to_bytes(8, sys.byteorder)),
    ],
)
def test_what_affinity_knows_a_client_by(question: Question, client: bytes) -> None:
    """Clients outside are addresses, those of this node network namespaces; the node's own is known."""
    assert question.affinity_client(host_netns_cookie=9) == client
