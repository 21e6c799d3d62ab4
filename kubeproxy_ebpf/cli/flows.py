# SPDX-License-Identifier: Apache-2.0
"""``flows``: what is to be done with connections from outside; ``dump flows`` shows them."""

from __future__ import annotations

from itertools import chain
from typing import Annotated

import typer

from kubeproxy_ebpf.cli.address_flag import parse_address_flag
from kubeproxy_ebpf.cli.flags import Load, configured
from kubeproxy_ebpf.cli.output import print_line
from kubeproxy_ebpf.config.keys import BPFFS


@configured((BPFFS,))
def delete(
    load: Load,
    *,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Of Services of this namespace.")] = "",
    name: Annotated[str, typer.Option("--name", help="Of Services of this name.")] = "",
    address: Annotated[str, typer.Option("--address", help="Of this client, frontend or endpoint.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="All that there are.")] = False,
) -> None:
    """Forget connections, as `dump flows` shows them with the same flags. Their next packets are nobody's."""
    from kubeproxy_ebpf.cli.flow_rows import connection_keys  # noqa: PLC0415 - only this verb needs it
    from kubeproxy_ebpf.cli.inventory import Filter, Inventory  # noqa: PLC0415 - likewise
    from kubeproxy_ebpf.cli.log_output import log_warnings_only  # noqa: PLC0415 - slow to import
    from kubeproxy_ebpf.datapath import loader  # noqa: PLC0415 - only some verbs need the kernel binding
    from kubeproxy_ebpf.datapath.flow_removal import retire  # noqa: PLC0415 - likewise

    log_warnings_only()
    if bool(namespace or name or address) == everything:
        msg = "say which: --namespace, --name, --address, or else --all"
        raise typer.BadParameter(msg, param_hint="flows delete")
    only = parse_address_flag(address)
    with loader.open_pinned(load().configuration.pin_folder, writable=True) as maps:
        inventory = Inventory(maps, Filter(namespace, name))
        connections = connection_keys(maps, inventory.names_of, only) if maps.has_flows else []
        if connections:
            retire(maps, chain.from_iterable(connections))
    print_line(f"deleted {len(connections)}")
