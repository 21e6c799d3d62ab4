# SPDX-License-Identifier: Apache-2.0
"""The demonstration: one node, its pods and an outside world, made of namespaces on this machine."""
