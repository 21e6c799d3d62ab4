# SPDX-License-Identifier: Apache-2.0
"""The kernel's side of the agent: load, attach, read and write maps, probe, listen."""
