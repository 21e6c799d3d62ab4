# SPDX-License-Identifier: Apache-2.0
"""JUnit files of test runs on several kernels -> a table for the terminal, and docs/kernels.md."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """# Kernels

What `{command}` says: the kernel tests (`tests/kernel`), unchanged, on each of these kernels. They are Debian's cloud
kernels for amd64, booted in QEMU ({qemu}) with one emulated processor; interpreter, libraries and compiled objects are
those of the machine it runs on. Every program goes through the verifier of that kernel there, and every connection
through its sockets.

Last run: {date}.

| kernel | passed | failed | skipped | refusals at sockets | duration | commit |
|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class KernelReport:
    """How the tests did on one kernel."""

    release: str
    """As `uname -r` prints it there."""
    verdicts: str
    """The form that refusals take there, as `kubeproxy-ebpf check` says it; or why it is not known."""
    seconds: float = 0.0
    passed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Test -> the first line of what went wrong."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Reason -> number of tests."""
    commit: str = ""
    """Of the repository that was tested."""

    @property
    def good(self) -> bool:
        """Whether tests were run, and all of them passed or were skipped."""
        return self.passed > 0 and not self.failed


def read_report(release: str, verdicts: str, seconds: float, junit: Path) -> KernelReport:
    """Count what pytest wrote about its tests."""
    passed = 0
    failed: dict[str, str] = {}
    skipped: Counter[str] = Counter()
    for case in ET.parse(junit).iter("testcase"):  # noqa: S314 - written by the guest of this run
        name = f"{case.get('classname')}::{case.get('name')}"
        bad = next((mark for kind in ("failure", "error") if (mark := case.find(kind)) is not None), None)
        skip = case.find("skipped")
        if bad is not None:
            failed[name] = _first_line(bad)
        elif skip is not None:
            skipped[_first_line(skip)] += 1
        else:
            passed += 1
    return KernelReport(release, verdicts, seconds, passed, failed, dict(skipped))


def terminal_table(reports: list[KernelReport]) -> str:
    """One line a kernel, and under it what failed and what was skipped."""
    lines = [f"{'kernel':32} {'passed':>7} {'failed':>7} {'skipped':>8} {'minutes':>8}"]
    for report in reports:
        counts = f"{report.passed:7} {len(report.failed):7} {sum(report.skipped.values()):8}"
        lines.append(f"{report.release:32} {counts} {report.seconds / 60:8.1f}")
        lines += [f"    FAILED {name}: {reason}" for name, reason in report.failed.items()]
        lines += [f"    skipped {count}: {reason}" for reason, count in report.skipped.items()]
    return "\n".join(lines)


def document(reports: list[KernelReport], command: str, qemu: str) -> str:
    """Give the content of docs/kernels.md."""
    today = datetime.now(UTC).date()  # noqa: TID251 - for people
    text = HEAD.format(command=command, qemu=qemu, date=today)
    for report in reports:
        cells = (
            *(report.release, report.passed, len(report.failed), sum(report.skipped.values())),
            *(report.verdicts, f"{report.seconds / 60:.0f} min", report.commit),
        )
        text += f"| {' | '.join(map(str, cells))} |\n"
    for report in reports:
        if report.failed or report.skipped:
            text += f"\n## {report.release}\n\n"
            text += "".join(f"- **failed** `{name}`: {reason}\n" for name, reason in report.failed.items())
            text += "".join(f"- skipped, {count}: {reason}\n" for reason, count in report.skipped.items())
    return text


def _first_line(mark: ET.Element) -> str:
    text = (mark.get("message") or mark.text or "no message").strip()
    return re.sub(r"\s+", " ", text.splitlines()[0])[:200]
