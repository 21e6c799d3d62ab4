# SPDX-License-Identifier: Apache-2.0
"""What was measured stays until it is measured again: the page is written from the newest of each measure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.report import Chart, Goal, Section
from tools.checkout import CHECKOUT

_FOLDER = CHECKOUT / ".bench"


@dataclass(frozen=True, slots=True)
class Measured:
    """One measure, as it was taken once."""

    name: str
    sections: list[Section]
    command: str
    commit: str
    stolen: str
    """A sentence on how much it was disturbed."""

    def remark(self) -> str:
        """Return one line on how it was taken."""
        return f"`{self.command}` at commit {self.commit}. {self.stolen}"


def keep(measured: Measured) -> None:
    """Keep it in place of an earlier one."""
    _FOLDER.mkdir(exist_ok=True)
    _file(measured.name).write_text(json.dumps(asdict(measured), indent=1))


def kept(names: Iterable[str]) -> Iterator[Measured]:
    """Yield the newest of each measure that there is one of, in order."""
    for name in names:
        if _file(name).exists():
            fields = json.loads(_file(name).read_text())
            yield Measured(**fields | {"sections": [_section(section) for section in fields["sections"]]})


def _file(name: str) -> Path:
    return _FOLDER / f"{name}.json"


def _section(fields: dict[str, Any]) -> Section:
    goals, charts = ([kind(**one) for one in fields[name]] for kind, name in ((Goal, "goals"), (Chart, "charts")))
    return Section(**fields | {"goals": goals, "charts": charts})
