# SPDX-License-Identifier: Apache-2.0
"""The demonstration with Kubernetes in front: API server, controllers, scheduler, and pods that come and go."""
