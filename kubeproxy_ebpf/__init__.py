# SPDX-License-Identifier: Apache-2.0
"""kubeproxy-ebpf: a kube-proxy replacement whose kernel side carries the work."""

__version__ = "0.1.0"
