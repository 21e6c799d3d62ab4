# SPDX-License-Identifier: Apache-2.0
"""``trace``: what would become of a connection, as the programs themselves decide it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from kubeproxy_ebpf.cli.flags import Load, configured
from kubeproxy_ebpf.cli.output import JsonFlag, print_json, print_table
from kubeproxy_ebpf.config.keys import BPFFS

if TYPE_CHECKING:
    from kubeproxy_ebpf.cli.explanation import EndpointRow, Explanation
    from kubeproxy_ebpf.cli.trace_target import Client, ServiceTarget
    from kubeproxy_ebpf.datapath.map_store import KernelMapStore
    from kubeproxy_ebpf.plan.service_plan import FrontendKey

_SOURCES = ("pod", "node", "outside")
_MOST_SHOWN = 8
"""Endpoints in a table; JSON has all of them."""
_COLUMNS = ("from", "to", "kind", "service", "verdict", "because", "endpoints", "affinity", "masquerade", "hook")
_NO_HOOK = "none"
_NO_HOOK_MEANS = "hook none: the verdict is what the rules say; here the connection passes untouched."
_MASQUERADE_MEANS = "masquerade: what the rules say; hooks keep the source, but of packets that go to other nodes."


@configured((BPFFS,))
def trace(
    load: Load,
    target: Annotated[
        str, typer.Argument(help="ADDRESS:PORT/PROTOCOL, or NAMESPACE/SERVICE[:PORT] for all that it answers on.")
    ],
    *,
    from_: Annotated[
        list[str] | None,
        typer.Option(
            "--from", metavar="SOURCE", help="pod, node or outside, with =ADDRESS where it matters. Default: each."
        ),
    ] = None,
    netns: Annotated[
        int,
        typer.Option(
            min=0, max=2**64 - 1, help="Which pod: its network namespace, by which `dump affinity` knows clients."
        ),
    ] = 0,
    json: JsonFlag = False,
) -> None:
    """Print what would become of a connection, and why. Nothing is sent, nothing is remembered."""
    from kubeproxy_ebpf.cli.log_output import log_warnings_only  # noqa: PLC0415 - slow to import
    from kubeproxy_ebpf.cli.trace_target import parse_client, parse_target  # noqa: PLC0415 - only this verb needs it
    from kubeproxy_ebpf.datapath import loader  # noqa: PLC0415 - only some verbs need the kernel binding

    log_warnings_only()
    wanted, clients = parse_target(target), [parse_client(text) for text in from_ or _SOURCES]
    with loader.open_pinned(load().configuration.pin_folder) as store:
        explanations = list(trace_all(store, wanted, clients, netns))
    if json:
        print_json([_as_json(explanation) for explanation in explanations])
        return
    print_table(_COLUMNS, [row_of(explanation) for explanation in explanations])
    _print_notes(explanations)


def trace_all(
    store: KernelMapStore, target: FrontendKey | ServiceTarget, clients: Sequence[Client], netns: int = 0
) -> Iterator[Explanation]:
    """Ask the programs about every frontend that a target means, from every client.

    Raises:
        TargetError: the maps have no such Service, or none of a client's family.
    """
    from kubeproxy_ebpf.cli.explanation import Names, explain  # noqa: PLC0415 - needs the kernel binding
    from kubeproxy_ebpf.cli.trace_target import destinations, of_family  # noqa: PLC0415 - likewise
    from kubeproxy_ebpf.datapath.trace import Question, Tracer  # noqa: PLC0415 - needs the kernel binding

    keys = destinations(target, store)
    with closing(Tracer(store)) as tracer:
        names, has_packet_path = Names(store), store.has_flows
        for client in clients:
            for key in of_family(client, keys):
                question = Question(key, client.source, client.address, netns)
                yield explain(key, client, tracer.trace(question), names, has_packet_path=has_packet_path)


def _as_json(explanation: Explanation) -> dict[str, object]:
    """Return an explanation as an object, and its endpoints as objects."""
    return {**explanation._asdict(), "endpoints": [row._asdict() for row in explanation.endpoints]}


def row_of(explanation: Explanation) -> tuple[str, ...]:
    """Return an explanation as a row of the table."""
    return (
        explanation.source,
        explanation.destination,
        explanation.kind,
        explanation.service,
        explanation.verdict,
        explanation.because,
        _endpoints(explanation.endpoints),
        _affinity(explanation),
        _masquerade(explanation.endpoints),
        ", ".join(explanation.hooks) or _NO_HOOK,
    )


def _endpoints(rows: Sequence[EndpointRow]) -> str:
    rest = f" and {len(rows) - _MOST_SHOWN} more" if len(rows) > _MOST_SHOWN else ""
    return ", ".join(row.endpoint for row in rows[:_MOST_SHOWN]) + rest


def _affinity(explanation: Explanation) -> str:
    if not explanation.affinity_seconds:
        return ""
    kept = f", now {explanation.affinity_endpoint}" if explanation.affinity_endpoint else ""
    return f"{explanation.affinity_seconds} s{kept}"


def _masquerade(rows: Sequence[EndpointRow]) -> str:
    chosen = [row.endpoint for row in rows if row.masquerade]
    if not chosen:
        return "no" if rows else ""
    return "yes" if len(chosen) == len(rows) else f"only to {', '.join(chosen[:_MOST_SHOWN])}"


def _print_notes(explanations: Sequence[Explanation]) -> None:
    """Say beside the table what it cannot: standard output stays one line a connection."""
    if any(not explanation.hooks for explanation in explanations):
        sys.stderr.write(f"{_NO_HOOK_MEANS}\n")
    if any(row.masquerade for explanation in explanations for row in explanation.endpoints):
        sys.stderr.write(f"{_MASQUERADE_MEANS}\n")
