# SPDX-License-Identifier: Apache-2.0
"""Asks the programs themselves what would become of a connection.

They are loaded for the moment, with the pinned maps and every write ruled out, and run once for each question
(BPF_PROG_TEST_RUN). Nothing is attached, pinned or remembered.
"""

from __future__ import annotations

import sys
from pathlib import Path
from struct import Struct
from typing import NamedTuple, Self

from kubeproxy_ebpf.datapath.errors import DatapathError
from kubeproxy_ebpf.datapath.libbpf import syscalls
from kubeproxy_ebpf.datapath.load_beside import HEADER, load_beside
from kubeproxy_ebpf.datapath.map_store import KernelMapStore
from kubeproxy_ebpf.layout.changes import ArrayMap
from kubeproxy_ebpf.map_schema import SOURCES, Set, pack_frontend_key, set_of, unpack_settings
from kubeproxy_ebpf.model.address import Address
from kubeproxy_ebpf.plan.service_plan import FrontendKey, Source, Verdict

TRACE_OBJECT = Path(__file__).parent.parent / "bpf" / "trace.bpf.o"
TRACE_PROGRAM = "trace"
UNKNOWN = bytes(16)
"""In place of an address, or of what affinity knows a client by: nobody knows it."""

# struct trace_question and struct trace_answer of bpf_src/trace_types.h.
QUESTION = Struct("=20sI16s16sI4x")
ANSWER = Struct("=QIIIIIIBBBBB3x")
_ATTEMPTS = 20


class TraceError(DatapathError):
    """The maps change faster than they can be read."""


class Question(NamedTuple):
    """A connection that might be made."""

    destination: FrontendKey
    source: Source
    address: Address | None = None
    """What the client sends from; None: not known."""
    netns: int = 0
    """The cookie of a pod's network namespace, by which session affinity knows it; 0: a pod that was never here."""

    def affinity_client(self, host_netns_cookie: int) -> bytes:
        """Return what session affinity knows the client by, as ``affinity_key`` has it."""
        if self.source is Source.OUTSIDE:
            return self.address or UNKNOWN
        cookie = host_netns_cookie if self.source is Source.NODE else self.netns
        return bytes(8) + cookie.to_bytes(8, sys.byteorder)

    def pack(self, affinity_client: bytes, number: int) -> bytes:
        """Return the packet that asks it; ``number`` of 32 bits picks a member of a set."""
        destination = pack_frontend_key(self.destination)
        fields = (SOURCES[self.source], self.address or UNKNOWN, affinity_client, number)
        return HEADER + QUESTION.pack(destination, *fields) + bytes(ANSWER.size)


class Answer(NamedTuple):
    """What the programs decide. Without a frontend the fields of a Service are 0."""

    set: Set
    """The set that applies."""
    service: int
    service_flags: int
    frontend_kind: int
    address_kinds: int
    affinity_seconds: int
    backend: int
    """The one that was picked, if the verdict is DNAT."""
    verdict: Verdict
    reason: int
    """enum reason."""
    is_local_set: bool
    by_affinity: bool
    """The backend is the one that session affinity remembers."""
    masquerade: bool
    """Whether a packet of the connection would get an address of this node as its source."""

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Unpack what a program answered."""
        word, service, flags, kind, kinds, seconds, backend, *small = ANSWER.unpack(data)
        verdict, reason, is_local_set, by_affinity, masquerade = small
        return cls(
            set=set_of(word),
            service=service,
            service_flags=flags,
            frontend_kind=kind,
            address_kinds=kinds,
            affinity_seconds=seconds,
            backend=backend,
            verdict=Verdict(verdict),
            reason=reason,
            is_local_set=bool(is_local_set),
            by_affinity=bool(by_affinity),
            masquerade=bool(masquerade),
        )


class Trace(NamedTuple):
    """An answer, and all that could be picked."""

    answer: Answer
    candidates: dict[int, bool]
    """By backend id, in the order of the set: whether the connection would be masqueraded. Without affinity's choice
    any of them may be picked."""


class Tracer:
    """The program that answers, loaded; close it at the end. ``store`` stays the caller's."""

    def __init__(self, store: KernelMapStore) -> None:
        """Load it.

        Raises:
            MixedVersionsError: the loaded programs have other maps.
            LoadError: the verifier refused.
        """
        self._store = store
        self._object = load_beside(store, TRACE_OBJECT, {"dry_run": 1})
        self._program = self._object.program_fd(TRACE_PROGRAM)

    def close(self) -> None:
        """Let the program go."""
        self._object.close()

    def trace(self, question: Question) -> Trace:
        """Answer a question.

        Raises:
            TraceError: the Service changed with every attempt.
        """
        cookie = unpack_settings(self._store.read(ArrayMap.SETTINGS)).host_netns_cookie
        client = question.affinity_client(cookie)
        for _ in range(_ATTEMPTS):
            answer = self._ask(question, client, 0)
            if answer.verdict is not Verdict.DNAT:
                return Trace(answer, {})
            candidates = self._candidates(question, answer.set)
            if candidates is not None:
                return Trace(answer, candidates)
        msg = f"service id {answer.service} changes faster than it can be read: try again in a moment"
        raise TraceError(msg)

    def _candidates(self, question: Question, members: Set) -> dict[int, bool] | None:
        """Let the program pick every member of a set; None if the set became another one meanwhile."""
        found = {}
        for offset in range(members.length):
            # The least number that stands for the offset: the program divides by 2^32.
            answer = self._ask(question, UNKNOWN, -(-(offset << 32) // members.length))
            if answer.set != members:
                return None
            if answer.verdict is Verdict.DNAT:
                found[answer.backend] = answer.masquerade
        return found

    def _ask(self, question: Question, affinity_client: bytes, number: int) -> Answer:
        run = syscalls.program_test_run(self._program, question.pack(affinity_client, number))
        return Answer.unpack(run.packet[-ANSWER.size :])
