# SPDX-License-Identifier: Apache-2.0
"""What a skip means: a kernel without a feature is a reason; a missing tool or right is one only on a desk.

A test skips with ``pytest.skip("kernel: no bpf_set_retval")`` where the kernel itself cannot do what is tested. Any
other reason counts as a failure when KUBEPROXY_EBPF_NO_SKIP is set, as continuous integration does.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

KERNEL_REASON = "kernel:"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Kernel tests need root."""
    if item.get_closest_marker("kernel") and os.geteuid() != 0:
        pytest.skip("root is needed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip for want of a prerequisite into a failure, if nothing may be skipped."""
    report = yield
    if os.environ.get("KUBEPROXY_EBPF_NO_SKIP") and report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(KERNEL_REASON):
            report.outcome = "failed"
            report.longrepr = f"a prerequisite is missing, and KUBEPROXY_EBPF_NO_SKIP is set: {reason}"
    return report
