# SPDX-License-Identifier: Apache-2.0
"""An API server as source of objects: all that talks to one.

``kubeconfig`` and ``login`` say how to reach it; ``api_client`` sends requests; ``reflector`` keeps up with one kind of
object, and ``kinds`` says which there are; ``operator`` is kopf, which brings the Node, and ``discovery`` what it is
told of a server; ``report`` writes events; ``source`` runs all of that in a thread of its own.
"""

from kubeproxy_ebpf.lean_import import without_authorities

with without_authorities():  # a tenth of a second, for a context that is not used
    import aiohttp  # noqa: F401 - for its import
