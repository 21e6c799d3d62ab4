# SPDX-License-Identifier: Apache-2.0
"""An API server as source of objects: all that talks to one.

``kubeconfig`` and ``login`` say how to reach it; ``api_client`` sends requests; ``reflector`` keeps up with one kind of
object, and ``kinds`` says which there are; ``operator`` is kopf, which brings the Node; ``report`` writes events;
``source`` runs all of that in a thread of its own.
"""
