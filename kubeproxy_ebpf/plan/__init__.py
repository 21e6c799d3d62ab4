# SPDX-License-Identifier: Apache-2.0
"""What this node must do for each Service. Pure: kube-proxy's rules live here and nowhere else."""
