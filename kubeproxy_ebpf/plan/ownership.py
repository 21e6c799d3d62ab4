# SPDX-License-Identifier: Apache-2.0
"""Who owns a frontend that several Services claim: the same on every node and after every restart.

The owner follows from the objects alone, not from the order in which they came: first what the
frontend is to the Service (a ClusterIP goes before an externalIP), then age, then name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kubeproxy_ebpf.model.objects import ObjectName
from kubeproxy_ebpf.plan.frontends import Claim, describe
from kubeproxy_ebpf.plan.service_plan import FrontendKey


class FrontendOwnership:
    """All claims to all frontends."""

    def __init__(self) -> None:
        """Start without claims."""
        self._claims: dict[FrontendKey, tuple[Claim, ...]] = {}

    def replace(self, old: Mapping[FrontendKey, Claim], new: Mapping[FrontendKey, Claim]) -> set[ObjectName]:
        """Replace a Service's claims; return the other Services that claim a frontend whose owner changed."""
        touched: set[ObjectName] = set()
        for key, claim in old.items():
            if new.get(key) != claim:
                touched |= self._withdraw(key, claim)
        for key, claim in new.items():
            if old.get(key) != claim:
                touched |= self._put_in(key, claim)
        return touched

    def _withdraw(self, key: FrontendKey, claim: Claim) -> set[ObjectName]:
        claims = self._claims[key]
        if len(claims) == 1:
            del self._claims[key]
            return set()
        self._claims[key] = rest = tuple(other for other in claims if other != claim)
        return {other.service for other in rest} if claims[0] == claim else set()

    def _put_in(self, key: FrontendKey, claim: Claim) -> set[ObjectName]:
        claims = self._claims.get(key)
        if claims is None:
            self._claims[key] = (claim,)
            return set()
        self._claims[key] = tuple(sorted((*claims, claim)))
        return {other.service for other in claims} if claim < claims[0] else set()

    def owner(self, key: FrontendKey) -> Claim:
        """Return the winning claim to a frontend that somebody claims."""
        return self._claims[key][0]


def describe_losses(losses: Iterable[tuple[FrontendKey, Claim]]) -> Iterator[str]:
    """Say in one sentence per owner which frontends that a Service claims belong to other Services."""
    by_owner: dict[ObjectName, list[FrontendKey]] = {}
    for key, claim in losses:
        by_owner.setdefault(claim.service, []).append(key)
    for owner, keys in by_owner.items():
        more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
        yield (
            f"{describe(keys[0])}{more} belongs to Service {owner}, whose claim goes first; give one of them another "
            "address or port"
        )
