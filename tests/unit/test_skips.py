# SPDX-License-Identifier: Apache-2.0
"""Skips of tests: allowed for what a kernel lacks, failures for missing prerequisites where nothing may be skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import pytest

def test_feature():
    pytest.skip("kernel: no bpf_set_retval")

def test_tool():
    pytest.skip("strace is not installed")

@pytest.mark.skipif(True, reason="no network")
def test_mark():
    pass
"""


@pytest.fixture
def run_tests(pytester: pytest.Pytester) -> pytest.Pytester:
    """Write tests that skip, under the conftest that these tests run under."""
    pytester.makeconftest((Path(__file__).parents[1] / "conftest.py").read_text())
    pytester.makepyfile(TESTS)
    return pytester


def test_any_skip_is_fine_on_a_desk(run_tests: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable everything that skips is only counted."""
    monkeypatch.delenv("KUBEPROXY_EBPF_NO_SKIP", raising=False)
    run_tests.runpytest_inprocess().assert_outcomes(skipped=3)


def test_only_the_kernel_excuses_in_ci(run_tests: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable a missing tool fails its test, and a mark's reason is looked at as well."""
    monkeypatch.setenv("KUBEPROXY_EBPF_NO_SKIP", "1")
    run_tests.runpytest_inprocess().assert_outcomes(skipped=1, failed=1, errors=1)
