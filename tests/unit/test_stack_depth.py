# SPDX-License-Identifier: Apache-2.0
"""How much stack the programs need: older kernels refuse more than 512 bytes over all calls, newer ones do not tell.

Up to 6.7 the verifier (``check_max_stack_depth`` in kernel/bpf/verifier.c) rounds each frame up to 32 bytes; later ones
round to 16 where there is a just-in-time compiler, so what fits there may not load on an older kernel.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

import kubeproxy_ebpf

OBJECTS = sorted((Path(kubeproxy_ebpf.__file__).parent / "bpf").glob("*.bpf.o"))
LIMIT, GRANULE = 512, 32
_FUNCTION = re.compile(r"^([0-9a-f]+) <(?!LBB)(\w+)>:")
_SECTION = re.compile(r"^Disassembly of section (\S+):")
_INSTRUCTION = re.compile(r"^\s*(\d+):\t((?:[0-9a-f]{2}\s)+)\s*(.*)$")
_RELOCATED = re.compile(r"R_BPF_64_32\s+(\S+)")
_FRAME = re.compile(r"\(r10 - (0x[0-9a-f]+|\d+)\)|^r\d+ \+= -(0x[0-9a-f]+|\d+)$")
_CALL_OF_OURS = "85 10"


def disassemble(path: Path) -> str:
    """Return the object's instructions, one a line, with what calls refer to."""
    command = ("llvm-objdump", "-d", "-r", str(path))
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Functions:
    """How deep in its stack each function reaches, in bytes, and whom it calls."""

    def __init__(self, text: str) -> None:
        """Read a disassembly."""
        self.frames: dict[str, int] = {}
        self.calls: defaultdict[str, set[str]] = defaultdict(set)
        starts: dict[tuple[str, int], str] = {}
        local: list[tuple[str, str, int]] = []
        section = function = ""
        distance = 0
        for line in text.splitlines():
            if match := _SECTION.match(line):
                section = match[1]
            elif match := _FUNCTION.match(line):
                function = match[2]
                self.frames[function] = 0
                starts[section, int(match[1], 16) // 8] = function
            elif match := _RELOCATED.search(line):
                local.pop()  # it was no distance from the call
                if match[1].startswith("."):  # a static function, by its place in its section
                    local.append((match[1], function, distance + 1))
                else:
                    self.calls[function].add(match[1])
            elif match := _INSTRUCTION.match(line):
                if match[2].startswith(_CALL_OF_OURS):
                    distance = _last_word(match[2])
                    local.append((section, function, int(match[1]) + 1 + distance))
                self._reach(function, match[3])
        for section, function, target in local:
            if called := starts.get((section, target)):
                self.calls[function].add(called)

    def _reach(self, function: str, instruction: str) -> None:
        if match := _FRAME.search(instruction):
            offset = int(match[1] or match[2], 0)
            # Other numbers may be taken away from other registers; no frame is deeper than the limit.
            self.frames[function] = max(self.frames[function], offset if offset <= LIMIT else 0)

    def depth(self, function: str) -> int:
        """Return the bytes that a function and those it calls need, as the verifier counts them."""
        own = max(-(-self.frames[function] // GRANULE), 1) * GRANULE
        return own + max((self.depth(other) for other in self.calls[function]), default=0)


def _last_word(instruction: str) -> int:
    return int.from_bytes(bytes.fromhex(instruction)[4:], "little", signed=True)


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.name)
def test_all_calls_together_fit_the_stack(path: Path) -> None:
    """Of every program of every object."""
    functions = Functions(disassemble(path))
    depths = {name: functions.depth(name) for name in list(functions.frames)}
    assert depths
    assert len(depths) == 1 or any(functions.calls.values())
    assert {name: depth for name, depth in depths.items() if depth > LIMIT} == {}


def test_calls_within_a_section_count() -> None:
    """Static functions are called by their distance, and not by their name."""
    functions = Functions(
        "Disassembly of section .text:\n\n"
        "0000000000000000 <outer>:\n"
        "       0:\t7b 1a f8 ff 00 00 00 00\t*(u64 *)(r10 - 480) = r1\n"
        "       1:\t85 10 00 00 01 00 00 00\tcall 1\n"
        "       2:\t95 00 00 00 00 00 00 00\texit\n"
        "0000000000000018 <inner>:\n"
        "       3:\tbf a2 00 00 00 00 00 00\tr2 = r10\n"
        "       4:\t07 02 00 00 d7 ff ff ff\tr2 += -41\n"
    )
    assert functions.depth("inner") == 64
    assert functions.depth("outer") == 480 + 64


def test_calls_of_static_functions_elsewhere_count() -> None:
    """The relocation names their section, and the instruction their place in it."""
    functions = Functions(
        "Disassembly of section .text:\n\n"
        "0000000000000000 <first>:\n"
        "       0:\t95 00 00 00 00 00 00 00\texit\n"
        "0000000000000008 <second>:\n"
        "       1:\t07 02 00 00 d7 ff ff ff\tr2 += -100\n"
        "       2:\t95 00 00 00 00 00 00 00\texit\n"
        "Disassembly of section tc:\n\n"
        "0000000000000000 <program>:\n"
        "       0:\t85 10 00 00 00 00 00 00\tcall 0\n"
        "\t\t0000000000000000:  R_BPF_64_32\t.text\n"
    )
    assert functions.calls["program"] == {"second"}
    assert functions.depth("program") == 32 + 128
