# SPDX-License-Identifier: Apache-2.0
"""A folder of manifests as source of objects: Services, EndpointSlices, Nodes and ServiceCIDRs, as the files say now.

``file`` reads one file; ``claims`` knows which file an object comes from; ``watch`` says which files changed;
``folder`` puts them together.
"""

from kubeproxy_ebpf.manifests.file import ManifestProblem
from kubeproxy_ebpf.manifests.folder import ManifestFolder
from kubeproxy_ebpf.manifests.watch import ManifestFolderError

__all__ = ["ManifestFolder", "ManifestFolderError", "ManifestProblem"]
