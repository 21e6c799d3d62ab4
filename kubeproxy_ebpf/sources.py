# SPDX-License-Identifier: Apache-2.0
"""Which source the configuration names."""

from __future__ import annotations

import os

from kubeproxy_ebpf.config.configuration import Configuration
from kubeproxy_ebpf.model.settings import LocalDetection
from kubeproxy_ebpf.source import Source

IN_CLUSTER_VARIABLE = "KUBERNETES_SERVICE_HOST"
"""Set in every pod."""


class NoSourceError(Exception):
    """Nothing says which Services there are."""

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__(
            "no source of Services: name a kubeconfig with --kubeconfig or a folder of manifests with --manifests; "
            "in a pod neither is needed"
        )


def open_source(configuration: Configuration) -> Source:
    """Open the folder of manifests, or begin to talk to the API server: what a kubeconfig names, or the pod's own.

    Raises:
        NoSourceError: the configuration names no source, and this is no pod.
        ManifestFolderError: the folder of manifests cannot be watched.
        KubeconfigError: it is not said how to reach the API server.
    """
    if configuration.manifests is not None:
        from kubeproxy_ebpf.manifests import ManifestFolder  # noqa: PLC0415 - memory for one of two

        return ManifestFolder(configuration.manifests)
    if configuration.kubeconfig is None and not os.environ.get(IN_CLUSTER_VARIABLE):
        raise NoSourceError
    from kubeproxy_ebpf.kubernetes.source import ApiServerSource  # noqa: PLC0415 - as above

    return ApiServerSource(
        kubeconfig=configuration.kubeconfig,
        api_servers=configuration.api_servers,
        node_name=configuration.node_name,
        needs_pod_cidrs=configuration.settings.local_detection is LocalDetection.NODE_CIDR,
    )
