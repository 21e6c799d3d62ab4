# SPDX-License-Identifier: Apache-2.0
"""``dump``: what is in the kernel's maps, with or without an agent."""

from __future__ import annotations

import enum
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kubeproxy_ebpf.cli.flags import Load, configured
from kubeproxy_ebpf.cli.output import JsonFlag, print_json, print_line, print_table
from kubeproxy_ebpf.config.keys import BPFFS

if TYPE_CHECKING:
    from kubeproxy_ebpf.cli.inventory import Inventory

_MOST_SHOWN = 8
"""Members of a list in a table; JSON has all of them."""


class What(enum.Enum):
    """What there is to dump."""

    SERVICES = "services"
    FRONTENDS = "frontends"
    BACKENDS = "backends"
    SETS = "sets"
    AFFINITY = "affinity"
    COUNTERS = "counters"


@configured((BPFFS,))
def dump(
    load: Load,
    what: Annotated[What, typer.Argument(help="What to print.")],
    *,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Only Services of this namespace.")] = "",
    name: Annotated[str, typer.Option("--name", help="Only Services of this name.")] = "",
    json: JsonFlag = False,
) -> None:
    """Print what the kernel's maps hold."""
    from kubeproxy_ebpf.cli.inventory import Filter, Inventory  # noqa: PLC0415 - only this verb needs it
    from kubeproxy_ebpf.cli.log_output import log_warnings_only  # noqa: PLC0415 - slow to import
    from kubeproxy_ebpf.datapath import loader  # noqa: PLC0415 - only some verbs need the kernel binding

    log_warnings_only()
    with loader.open_pinned(load().configuration.pin_folder) as maps:
        tables = _tables(Inventory(maps, Filter(namespace, name)), what)
    if json:
        print_json(_as_json(tables))
        return
    for number, rows in enumerate(tables.values()):
        if number:
            print_line()
        _print_rows(rows)


def _tables(inventory: Inventory, what: What) -> dict[str, Sequence[Any]]:
    """Return the rows asked for, by the name of their table."""
    match what:
        case What.SERVICES:
            return {"services": inventory.services()}
        case What.FRONTENDS:
            return {"frontends": inventory.frontends()}
        case What.BACKENDS:
            return {"backends": inventory.backends()}
        case What.SETS:
            return {"sets": inventory.sets()}
        case What.AFFINITY:
            return {"affinity": inventory.affinity(time.clock_gettime_ns(time.CLOCK_BOOTTIME))}
        case What.COUNTERS:
            return {"services": inventory.counters(), "reasons": inventory.reasons()}


def _as_json(tables: dict[str, Sequence[Any]]) -> object:
    """Return one table as a list of objects, several by their names."""
    objects = {name: [row._asdict() for row in rows] for name, rows in tables.items()}
    return next(iter(objects.values())) if len(objects) == 1 else objects


def _print_rows(rows: Sequence[Any]) -> None:
    if not rows:
        print_line("none")
        return
    columns = [field.replace("_", " ") for field in rows[0]._fields]
    print_table(columns, [[_cell(value) for value in row] for row in rows])


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        rest = f" and {len(value) - _MOST_SHOWN} more" if len(value) > _MOST_SHOWN else ""
        return ", ".join(map(str, value[:_MOST_SHOWN])) + rest
    return str(value)
