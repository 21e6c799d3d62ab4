# SPDX-License-Identifier: Apache-2.0
"""Measures what connections cost with this proxy, with kube-proxy and with none. ``bench/run`` starts it."""
