# SPDX-License-Identifier: Apache-2.0
"""Which bytes say what the plan says, and in which order they are written. Pure."""
