# SPDX-License-Identifier: Apache-2.0
"""Raw objects, as the API server or a file gives them, to the model. The only place that reads raw objects.

A raw object is made of what JSON knows: dict, list, str, int, float, bool and None. An object that is
not this proxy's business becomes :class:`~kubeproxy_ebpf.model.objects.Ignored`; one that cannot be
understood raises :class:`ObjectError`; of one with a few unusable entries the rest is kept, and its
``problems`` say what was left out.
"""

from kubeproxy_ebpf.decode.endpoint_slice import decode_endpoint_slice
from kubeproxy_ebpf.decode.errors import ObjectError
from kubeproxy_ebpf.decode.node import decode_node
from kubeproxy_ebpf.decode.service import decode_service
from kubeproxy_ebpf.decode.service_cidr import decode_service_cidr

__all__ = ["ObjectError", "decode_endpoint_slice", "decode_node", "decode_service", "decode_service_cidr"]
