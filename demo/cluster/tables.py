# SPDX-License-Identifier: Apache-2.0
"""Tables: how one change goes, Pod by Pod, while it goes; and all changes in the end."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich.table import Table

from demo.cluster.progress import Progress


def of_change(progress: Progress) -> Table:
    """Return what happened since a request: each column in milliseconds after it."""
    table = Table(box=None, caption=_caption(progress), caption_justify="left")
    table.add_column("milliseconds after the request", no_wrap=True)
    table.add_column("EndpointSlice", justify="right", no_wrap=True)
    table.add_column("connections", justify="right", no_wrap=True)
    table.add_column("later by", justify="right", no_wrap=True)
    table.add_row("[dim]the API server has acknowledged it[/]", _number(progress.milliseconds(progress.acknowledged)))
    for step in progress.steps():
        sign = "[green]+" if step.comes else "[yellow]-"
        times = (step.said, step.in_effect)
        shown = ("" if time is None else _number(progress.milliseconds(time)) for time in times)
        table.add_row(f"{sign} {step.name}[/]", *shown, "" if step.delay is None else _number(step.delay))
    return table


def of_all(changes: Sequence[tuple[str, Progress]]) -> Table:
    """Return what became of all changes."""
    table = Table(title="What each change took, in milliseconds", title_justify="left", box=None)
    table.caption = (
        "EndpointSlice →: to the first answer of a Pod that comes, or\n"
        "the last of one that goes. The very last ones serve to their end.\n"
        "Failed: only while there was nobody to answer."
    )
    table.caption_justify = "left"
    table.add_column("", no_wrap=True)
    for heading in (
        "API",
        "Pods\n+  -",
        "EndpointSlice →\nmedian   most",
        "agent:\nlongest",
        "connections\nfailed/all",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for title, progress in changes:
        steps = progress.steps()
        delays = [step.delay for step in steps if step.delay is not None] or [0.0]
        table.add_row(
            title,
            _number(progress.milliseconds(progress.acknowledged)),
            f"{sum(step.comes for step in steps)}  {sum(not step.comes for step in steps)}",
            f"{_number(statistics.median(delays))} {_number(max(delays)):>6}",
            f"{progress.longest_sync:.2f}",
            f"{progress.failed}/{progress.seen.made + progress.failed}",
        )
    return table


def _caption(progress: Progress) -> str:
    failed = f"[bold]{progress.failed} failed[/]" if progress.failed else "none failed"
    kinds = ", ".join(sorted(progress.seen.errors))
    agent = f"the agent: {len(progress.syncs)} syncs, {progress.writes} writes, {progress.longest_sync:.2f} ms at most"
    return f"{progress.seen.made} connections answered, {failed}{f' ({kinds})' if kinds else ''}\n{agent}"


def _number(milliseconds: float) -> str:
    return f"{milliseconds:.1f}"
