# SPDX-License-Identifier: Apache-2.0
"""What Kubernetes says, reduced to what a node's proxy needs to know. Pure data."""
