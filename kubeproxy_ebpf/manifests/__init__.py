# SPDX-License-Identifier: Apache-2.0
"""A folder of manifests as source of objects: Services, EndpointSlices and Nodes, as the files say now.

``file`` reads one file; ``claims`` knows which file an object comes from; ``watch`` says which files changed;
``folder`` puts them together.
"""

from kubeproxy_ebpf.manifests.file import KubernetesObject, ManifestProblem, ObjectKey
from kubeproxy_ebpf.manifests.folder import ManifestFolder, Update
from kubeproxy_ebpf.manifests.watch import ManifestFolderError

__all__ = ["KubernetesObject", "ManifestFolder", "ManifestFolderError", "ManifestProblem", "ObjectKey", "Update"]
