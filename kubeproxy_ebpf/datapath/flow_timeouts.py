# SPDX-License-Identifier: Apache-2.0
"""When a connection that nothing is heard of is forgotten: nf_conntrack's times, as kube-proxy sets them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowTimeouts:
    """Seconds of silence. TCP that was closed, reset or never confirmed is given conntrack's 120, 10 and 60 seconds."""

    tcp_established: float = 86400.0
    tcp_close_wait: float = 3600.0
    """One side has said that it sends no more."""
    udp_stream: float = 120.0
    """Both sides have sent."""

    def as_constants(self) -> dict[str, int]:
        """Return the constants of the sweep program: whole seconds, at least one."""
        return {
            "tcp_established_timeout": _seconds(self.tcp_established),
            "tcp_close_wait_timeout": _seconds(self.tcp_close_wait),
            "udp_timeout": _seconds(self.udp_stream),
        }


def _seconds(time: float) -> int:
    return max(1, round(time))
