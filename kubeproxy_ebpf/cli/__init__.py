# SPDX-License-Identifier: Apache-2.0
"""The command ``kubeproxy-ebpf``, one module per verb. What a verb needs is imported when it is used."""
