# SPDX-License-Identifier: Apache-2.0
"""What holds for every test: it leaves logging as it was, and a skip means what it says.

A kernel without a feature is a reason to skip; a missing tool or right is one only on a desk.
A test skips with ``pytest.skip("kernel: no bpf_set_retval")`` where the kernel itself cannot do what is tested. Any
other reason counts as a failure when KUBEPROXY_EBPF_NO_SKIP is set, as continuous integration does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator

import pytest
import structlog

KERNEL_REASON = "kernel:"

pytest_plugins = ("tests.kernel.scratch",)


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Undo what a command under test did to logging: its stream is gone when the test is."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Kernel and cluster tests need root."""
    if (item.get_closest_marker("kernel") or item.get_closest_marker("cluster")) and os.geteuid() != 0:
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
