# SPDX-License-Identifier: Apache-2.0
"""docs/compatibility.md: what it claims has a proof, and the proofs are there."""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.behaviour import Case, load_cases

TESTS = Path(__file__).parents[1]
DOCUMENT = TESTS.parent / "docs" / "compatibility.md"

HEADINGS = ["behaviour", "here", "proof"]
SAME, AT_SOCKETS, TCP_AND_UDP = "same", "same at sockets", "same for TCP and UDP"
DIFFERS, PLANNED, NOT_YET = "differs", "planned as data", "not yet"
STATES = (AT_SOCKETS, TCP_AND_UDP, SAME, DIFFERS, PLANNED, NOT_YET)
"""Longer ones before those that they begin with."""

_SECTION = re.compile(r"## (?:(1\.\d+) )?(.+)")
_LABEL = re.compile(r"\*\*(.+?)\*\*")
_HERE = re.compile(rf"({'|'.join(STATES)})(?:: (.+))?")
_PROOF = re.compile(r"`([^`]+)`")


class Row(NamedTuple):
    """One row of a table. ``name`` is what the cases call it."""

    name: str
    state: str
    explanation: str
    proofs: tuple[str, ...]


def parse(text: str) -> list[Row]:
    """Return the rows of all tables with the document's three columns.

    Raises:
        ValueError: a line of such a table is not a row.
    """
    rows: list[Row] = []
    section, in_table = "", False
    for line in text.splitlines():
        if heading := _SECTION.fullmatch(line):
            section = f"{heading[1]} " if heading[1] else f"{heading[2]}: "
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        in_table = cells == HEADINGS or (in_table and bool(cells))
        if in_table and cells != HEADINGS and not set(line) <= set("|- "):
            rows.append(_row(section, cells))
    return rows


def _row(section: str, cells: list[str]) -> Row:
    label = _LABEL.match(cells[0])
    here = _HERE.fullmatch(cells[1]) if len(cells) == len(HEADINGS) else None
    if not label or not here:
        msg = f"{cells} is not `**label** words | state: explanation | proofs`, with a state of {STATES}"
        raise ValueError(msg)
    return Row(section + label[1], here[1], here[2] or "", tuple(_PROOF.findall(cells[2])))


ROWS = parse(DOCUMENT.read_text(encoding="utf-8"))


def _cases(proof: str) -> list[Case]:
    return [case for case in load_cases() if fnmatchcase(case.id, proof)]


def _functions(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}


def _problems(row: Row) -> list[str]:
    """Return what is wrong with a row, in words."""
    problems = [f"{proof} is not there" for proof in row.proofs if not _is_there(proof)]
    if row.state != NOT_YET and not row.proofs:
        problems.append(f"claims {row.state!r} without proof")
    if row.state in {DIFFERS, PLANNED} and not row.explanation:
        problems.append(f"is {row.state!r} without saying how")
    if row.state in {AT_SOCKETS, TCP_AND_UDP} and not any(map(_shows_sockets, row.proofs)):
        problems.append("no proof goes through a real socket")
    if row.state == TCP_AND_UDP and not any(map(_shows_packets, row.proofs)):
        problems.append("no proof comes from outside")
    if row.state == PLANNED and not any(map(_cases, row.proofs)):
        problems.append("no case shows what is planned")
    return problems


def _is_there(proof: str) -> bool:
    """Whether a test (``unit/test_x.py::test_y``) exists, or a case has the id (``*`` for any letters)."""
    file, is_test, function = proof.partition("::")
    if not is_test:
        return bool(_cases(proof))
    path = TESTS / file
    return function.startswith("test_") and path.is_file() and function in _functions(path)


def _shows_sockets(proof: str) -> bool:
    if "::" in proof:
        return proof.startswith("kernel/")
    return any(flow.sockets for case in _cases(proof) for step in case.steps for flow in step.flows)


def _shows_packets(proof: str) -> bool:
    if "::" in proof:
        return proof.startswith("kernel/packets/")
    return any(flow.packets for case in _cases(proof) for step in case.steps for flow in step.flows)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row_is_proved(row: Row) -> None:
    """Every claim names cases or tests that exist and can show it; what differs says how."""
    assert not _problems(row)


def test_every_rows_name_is_its_own() -> None:
    """A row is found by its name."""
    names = [row.name for row in ROWS]
    assert not [name for name in names if names.count(name) > 1]


def test_every_case_has_a_row() -> None:
    """What the behaviour cases say they prove is in a table, and that row names them."""
    proofs: dict[str, tuple[str, ...]] = {row.name: row.proofs for row in ROWS}
    unnamed = [
        f"{case.row}: {case.id}"
        for case in load_cases()
        if not any(fnmatchcase(case.id, proof) for proof in proofs.get(case.row, ()))
    ]
    assert not unnamed


def test_every_section_is_there() -> None:
    """Sections 1.1 to 1.17 each have rows."""
    sections = {row.name.partition(" ")[0] for row in ROWS}
    assert {f"1.{number}" for number in range(1, 18)} <= sections


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ("| **x** y | same |  |", "claims 'same' without proof"),
        ("| **x** y | differs | `zone-hints` |", "is 'differs' without saying how"),
        ("| **x** y | same | `no-such-case` |", "no-such-case is not there"),
        (
            "| **x** y | same | `unit/test_compatibility.py::test_no` |",
            "unit/test_compatibility.py::test_no is not there",
        ),
        ("| **x** y | same | `unit/no.py::test_no` |", "unit/no.py::test_no is not there"),
        ("| **x** y | same at sockets | `pods-of-other-nodes-are-outside` |", "no proof goes through a real socket"),
        ("| **x** y | same for TCP and UDP | `zone-hints-without-zone-label` |", "no proof comes from outside"),
        ("| **x** y | planned as data: z | `unit/test_cases.py::test_case` |", "no case shows what is planned"),
    ],
)
def test_wrong_rows_are_found(cells: str, problem: str) -> None:
    """A claim without proof, and a proof that does not exist or show it, are each found."""
    (row,) = parse(f"## 1.1 Section\n| behaviour | here | proof |\n|---|---|---|\n{cells}\n")
    assert _problems(row) == [problem]


@pytest.mark.parametrize(
    "cells", ["| **x** | nearly | `zone-hints` |", "| x | same | `zone-hints` |", "| **x** | same |"]
)
def test_lines_that_are_no_rows_are_refused(cells: str) -> None:
    """A line that cannot be read is not passed over."""
    with pytest.raises(ValueError, match="is not"):
        parse(f"## 1.1 Section\n| behaviour | here | proof |\n|---|---|---|\n{cells}\n")
