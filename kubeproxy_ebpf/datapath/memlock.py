# SPDX-License-Identifier: Apache-2.0
"""Kernels before 5.11 count the memory of maps against RLIMIT_MEMLOCK, which is far too small for them."""

from __future__ import annotations

import resource

from kubeproxy_ebpf.datapath.libbpf.kernel_types import Helper, ProgramType
from kubeproxy_ebpf.datapath.libbpf.programs import has_helper


def counts_maps() -> bool:
    """Whether this kernel counts maps against the limit: it changed in the release that brought this helper."""
    return not has_helper(ProgramType.SOCKET_FILTER, Helper.KTIME_GET_COARSE_NS)


def raise_limit() -> bool:
    """Lift the limit for this process; False if CAP_SYS_RESOURCE is missing for that."""
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, PermissionError):
        return False
    return True
