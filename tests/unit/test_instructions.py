# SPDX-License-Identifier: Apache-2.0
"""What instructions the compiled programs have: only such as every kernel that is supported knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.test_stack_depth import OBJECTS, disassemble

_ATOMIC = re.compile(r"^\s*\d+:\t(?:db|c3) (?:[0-9a-f]{2} ){3}((?:[0-9a-f]{2} ?){4})", re.MULTILINE)
"""BPF_STX | BPF_ATOMIC on eight or four bytes, and which operation it is; all zeros: to add, and no more."""


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.name)
def test_atomic_operations_only_add(path: Path) -> None:
    """Others, and those that return what was there, came with Linux 5.12; compilers differ in when they make one."""
    found = [match[1].split() for match in _ATOMIC.finditer(disassemble(path))]
    assert [operation for operation in found if operation != ["00"] * 4] == []
    assert found or path.name != "forward.bpf.o", "where there is one to look at"
