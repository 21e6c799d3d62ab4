# SPDX-License-Identifier: Apache-2.0
"""``--address``, which several verbs have."""

from __future__ import annotations

import typer

from kubeproxy_ebpf.model.address import Address, parse_address


def parse_address_flag(text: str) -> Address | None:
    """Return the value of ``--address``; None: it was not given.

    Raises:
        typer.BadParameter: it is no address.
    """
    if not text:
        return None
    try:
        return parse_address(text)
    except ValueError:
        msg = f"{text!r} is not an IP address; write e.g. 203.0.113.5 or 2001:db8::5"
        raise typer.BadParameter(msg, param_hint="--address") from None
