# SPDX-License-Identifier: Apache-2.0
"""How a refusal is said to a socket: which of two forms this kernel can do."""

from __future__ import annotations

import enum

from kubeproxy_ebpf.datapath.libbpf.kernel_types import Helper, ProgramType
from kubeproxy_ebpf.datapath.libbpf.programs import has_helper


class VerdictForm(enum.IntEnum):
    """The programs' constant of the same name; the values are those of ``enum verdict_form`` in map_types.h."""

    LOOPBACK = 0
    """REJECT leads to a closed port of the loopback, so ECONNREFUSED; DROP is EPERM."""
    RETVAL = 1
    """REJECT is ECONNREFUSED, DROP is ETIMEDOUT, both at once."""


def probe_verdict_form() -> VerdictForm:
    """Ask the kernel whether it has bpf_set_retval() (5.18+)."""
    known = has_helper(ProgramType.CGROUP_SOCK_ADDR, Helper.SET_RETVAL)
    return VerdictForm.RETVAL if known else VerdictForm.LOOPBACK
