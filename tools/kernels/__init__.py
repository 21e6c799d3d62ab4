# SPDX-License-Identifier: Apache-2.0
"""The kernel tests on other kernels: Debian's packages, booted in QEMU with this machine's files."""
