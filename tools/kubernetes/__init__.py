# SPDX-License-Identifier: Apache-2.0
"""A real Kubernetes control plane for tests, demo and benchmarks: built from Go modules once, run in namespaces."""
