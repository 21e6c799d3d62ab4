# SPDX-License-Identifier: Apache-2.0
"""The command line's verbs, and what becomes of errors: named ones are one message, others keep their traceback."""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable

import typer

from kubeproxy_ebpf.cli.check import check
from kubeproxy_ebpf.cli.dump import dump
from kubeproxy_ebpf.cli.run import run
from kubeproxy_ebpf.cli.unload import unload
from kubeproxy_ebpf.cli.version import version

_PACKAGE = "kubeproxy_ebpf"


def _reporting(verb: Callable[..., None]) -> Callable[..., None]:
    """Return a verb that prints the errors that this package has named: they say what to do, a traceback hides it."""

    @functools.wraps(verb)
    def reporting(**arguments: object) -> None:
        try:
            verb(**arguments)
        except Exception as error:
            if type(error).__module__.partition(".")[0] != _PACKAGE:
                raise
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error

    return reporting


app = typer.Typer(
    help="A kube-proxy replacement on eBPF, for any Kubernetes cluster, whatever CNI it runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _verb in (run, check, dump, unload, version):
    app.command()(_reporting(_verb))


def main() -> None:
    """Run the command line. A thread that still waits for an API server then is of no more use, and not waited for."""
    try:
        app()
    except SystemExit as end:
        if threading.active_count() == 1:
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)


if __name__ == "__main__":
    main()
