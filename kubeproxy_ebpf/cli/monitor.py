# SPDX-License-Identifier: Apache-2.0
"""``monitor``: what the programs decide, as they do."""

from __future__ import annotations

import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubeproxy_ebpf.cli.address_flag import parse_address_flag
from kubeproxy_ebpf.cli.flags import Load, configured
from kubeproxy_ebpf.cli.output import JsonFlag, print_json_line, print_line
from kubeproxy_ebpf.config.keys import BPFFS

if TYPE_CHECKING:
    from kubeproxy_ebpf.cli.packet_file import PacketFile
    from kubeproxy_ebpf.datapath.events import EventReader
    from kubeproxy_ebpf.map_schema import Event


@configured((BPFFS,))
def monitor(
    load: Load,
    *,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Only Services of this namespace.")] = "",
    name: Annotated[str, typer.Option("--name", help="Only Services of this name.")] = "",
    address: Annotated[str, typer.Option("--address", help="Only with this client, frontend or endpoint.")] = "",
    refused: Annotated[bool, typer.Option("--refused", help="Only what got no endpoint.")] = False,
    rate: Annotated[int, typer.Option(min=0, help="At most so many a second; 0: all.")] = 100,
    count: Annotated[int, typer.Option(min=0, help="End after so many; 0: never.")] = 0,
    write: Annotated[
        Path | None, typer.Option("--write", metavar="FILE", help="Keep the packets shown, for Wireshark (pcapng).")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Print each decision about a new connection: of packets from outside, of sockets, and refusals with the reason."""
    from kubeproxy_ebpf.cli.event_rows import ServiceNames, event_row, is_about  # noqa: PLC0415 - only this verb
    from kubeproxy_ebpf.cli.inventory import Filter  # noqa: PLC0415 - likewise
    from kubeproxy_ebpf.cli.log_output import log_warnings_only  # noqa: PLC0415 - slow to import
    from kubeproxy_ebpf.datapath import loader  # noqa: PLC0415 - only some verbs need the kernel binding
    from kubeproxy_ebpf.datapath.events import EventReader  # noqa: PLC0415 - likewise
    from kubeproxy_ebpf.plan.service_plan import Verdict  # noqa: PLC0415 - likewise

    log_warnings_only()
    only = parse_address_flag(address)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    since_boot = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    pin_folder = load().configuration.pin_folder
    with (
        loader.open_pinned(pin_folder, writable=True) as maps,
        EventReader(maps, pin_folder) as reader,
        _packet_file(write) as packets,
    ):
        names, limit = ServiceNames(maps, Filter(namespace, name)), RateLimit(rate)
        shown = 0
        for event in _events(reader, limit):
            service = names.of(event.service)
            if (
                ((namespace or name) and service is None)
                or (only is not None and not is_about(event, only))
                or (refused and event.verdict == Verdict.DNAT.value)
                or not limit.admits()
            ):
                continue
            row = event_row(event, service, _device_name, since_boot)
            if json:
                print_json_line(row._asdict())
            else:
                print_line(row.line())
            if packets is not None and event.packet is not None:
                packets.add(event.packet, device=row.device, time=event.time + since_boot, comment=row.line())
            shown += 1
            if shown == count:
                return


class RateLimit:
    """Lets so many through in each second, and says how many it did not let through."""

    def __init__(self, rate: int) -> None:
        """Begin; 0: everything."""
        self._rate = rate
        self._second = 0
        self._admitted = 0
        self._held_back = 0

    def admits(self) -> bool:
        """Whether one more may pass."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._admitted = second, 0
        if self._rate and self._admitted >= self._rate:
            self._held_back += 1
            return False
        self._admitted += 1
        return True

    def report(self) -> None:
        """Say on standard error how many were held back since the last time."""
        if self._held_back:
            sys.stderr.write(f"{self._held_back} more than --rate {self._rate} a second were not shown\n")
            self._held_back = 0


@contextmanager
def _packet_file(path: Path | None) -> Iterator[PacketFile | None]:
    """Open the file that packets are to be kept in, if any."""
    from kubeproxy_ebpf.cli.packet_file import PacketFile  # noqa: PLC0415 - only where it is asked for

    if path is None:
        yield None
        return
    with closing(PacketFile(path)) as file:
        yield file


def _events(reader: EventReader, limit: RateLimit) -> Iterator[Event]:
    """Yield events until somebody interrupts."""
    try:
        while True:
            select.select([reader], [], [], 1)
            yield from reader.read()
            limit.report()
    except KeyboardInterrupt:
        return


def _device_name(index: int) -> str:
    """Return an interface's name in this network namespace, which should be the node's."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return f"device {index}"
