# SPDX-License-Identifier: Apache-2.0
"""The command line's verbs."""

from __future__ import annotations

import functools
from collections.abc import Callable

import typer

from kubeproxy_ebpf.cli.check import check
from kubeproxy_ebpf.cli.dump import dump
from kubeproxy_ebpf.cli.flows import delete
from kubeproxy_ebpf.cli.monitor import monitor
from kubeproxy_ebpf.cli.reporting import errors_as_messages
from kubeproxy_ebpf.cli.run import run
from kubeproxy_ebpf.cli.trace import trace
from kubeproxy_ebpf.cli.unload import unload
from kubeproxy_ebpf.cli.version import version


def _reporting(verb: Callable[..., None]) -> Callable[..., None]:
    """Return a verb whose errors are messages."""

    @functools.wraps(verb)
    def reporting(**arguments: object) -> None:
        with errors_as_messages():
            verb(**arguments)

    return reporting


app = typer.Typer(
    help="A kube-proxy replacement on eBPF, for any Kubernetes cluster, whatever CNI it runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _verb in (run, check, dump, trace, monitor, unload, version):
    app.command()(_reporting(_verb))


flows = typer.Typer(help="Change connections from outside; `dump flows` shows them.", no_args_is_help=True)
flows.command()(_reporting(delete))
app.add_typer(flows, name="flows")


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
