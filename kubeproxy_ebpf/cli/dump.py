# SPDX-License-Identifier: Apache-2.0
"""``dump``: what is in the kernel's maps, with or without an agent."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kubeproxy_ebpf.cli.address_flag import parse_address_flag
from kubeproxy_ebpf.cli.flags import Load, configured
from kubeproxy_ebpf.cli.output import JsonFlag, print_json, print_line, print_table
from kubeproxy_ebpf.config.keys import BPFFS

if TYPE_CHECKING:
    from kubeproxy_ebpf.cli.inventory import Inventory
    from kubeproxy_ebpf.datapath.map_store import KernelMapStore
    from kubeproxy_ebpf.model.address import Address

_MOST_SHOWN = 8
"""Members of a list in a table; JSON has all of them."""


class What(enum.Enum):
    """What there is to dump."""

    SERVICES = "services"
    FRONTENDS = "frontends"
    BACKENDS = "backends"
    SETS = "sets"
    AFFINITY = "affinity"
    FLOWS = "flows"
    COUNTERS = "counters"


@configured((BPFFS,))
def dump(
    load: Load,
    what: Annotated[What, typer.Argument(help="What to print.")],
    *,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Only Services of this namespace.")] = "",
    name: Annotated[str, typer.Option("--name", help="Only Services of this name.")] = "",
    address: Annotated[str, typer.Option("--address", help="Only flows of this client, frontend or endpoint.")] = "",
    json: JsonFlag = False,
) -> None:
    """Print what the kernel's maps hold."""
    from kubeproxy_ebpf.cli.inventory import Filter, Inventory  # noqa: PLC0415 - only this verb needs it
    from kubeproxy_ebpf.cli.log_output import log_warnings_only  # noqa: PLC0415 - slow to import
    from kubeproxy_ebpf.datapath import loader  # noqa: PLC0415 - only some verbs need the kernel binding

    log_warnings_only()
    only = parse_address_flag(address)
    with loader.open_pinned(load().configuration.pin_folder) as maps:
        tables = _tables(maps, Inventory(maps, Filter(namespace, name)), what, only)
    if json:
        print_json(_as_json(tables))
        return
    for number, rows in enumerate(tables.values()):
        if number:
            print_line()
        _print_rows(rows)


def _flows(maps: KernelMapStore, inventory: Inventory, address: Address | None) -> Sequence[Any]:
    """Return the connections that packets make; none without the packet programs."""
    from kubeproxy_ebpf.cli.flow_rows import flow_rows  # noqa: PLC0415 - only this table needs it

    return flow_rows(maps, inventory.names_of, address) if maps.has_flows else []


def _tables(
    maps: KernelMapStore, inventory: Inventory, what: What, address: Address | None
) -> dict[str, Sequence[Any]]:
    """Return the rows asked for, by the name of their table."""
    makers: dict[What, Callable[[], dict[str, Sequence[Any]]]] = {
        What.SERVICES: lambda: {"services": inventory.services()},
        What.FRONTENDS: lambda: {"frontends": inventory.frontends()},
        What.BACKENDS: lambda: {"backends": inventory.backends()},
        What.SETS: lambda: {"sets": inventory.sets()},
        What.AFFINITY: lambda: {"affinity": inventory.affinity(time.clock_gettime_ns(time.CLOCK_BOOTTIME))},
        What.FLOWS: lambda: {"flows": _flows(maps, inventory, address)},
        What.COUNTERS: lambda: {"services": inventory.counters(), "reasons": inventory.reasons()},
    }
    return makers[what]()


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
