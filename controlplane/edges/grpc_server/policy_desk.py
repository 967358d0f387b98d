"""What ``AdminService`` does about the policy: shows, tries, sets and takes back its settings."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace

from controlplane.domain.event import PolicyChanged
from controlplane.domain.job import Owner
from controlplane.domain.placement import Placement
from controlplane.domain.policy import Policy, PolicySettings
from controlplane.domain.reason import Reason
from controlplane.domain.settings_version import SettingsVersion
from controlplane.edges.grpc_server.door import Door
from controlplane.edges.grpc_server.errors import not_found, precondition
from controlplane.edges.grpc_server.feed import StateFeed
from controlplane.edges.grpc_server.policy_settings import SettingsBook
from controlplane.edges.grpc_server.roles import Role, caller
from controlplane.engine.trial import Difference, Fate, tried
from controlplane.wire.sentences import action_sentence
from controlplane.wire.translate import timestamp
from headrace.api.generated import admin_pb2


class PolicyDesk:
    """The policy and its settings."""

    def __init__(self, feed: StateFeed, door: Door, policies: Mapping[str, Policy]) -> None:
        self._feed = feed
        self._door = door
        self._policies = policies
        self._book = SettingsBook(policies)
        self._setting = asyncio.Lock()
        """Two who set different things at a time must not undo each other's."""

    @property
    def _settings(self) -> PolicySettings:
        return self._feed.state.settings

    @property
    def _versions(self) -> tuple[SettingsVersion, ...]:
        return self._feed.state.settings_versions or (SettingsVersion(1, self._settings),)

    def get(self) -> admin_pb2.GetPolicyResponse:
        """The settings with what they mean, and which policies there are."""
        return admin_pb2.GetPolicyResponse(
            settings=self._book.to_wire(self._settings),
            policies=self._book.policies,
            descriptions=self._book.descriptions(),
            version=self._versions[-1].version,
        )

    async def set(self, wanted: Mapping[str, str]) -> admin_pb2.SetPolicyResponse:
        """Changes some settings. Those that an operator sets are Kubernetes's from then on, until
        it sets none.

        Raises:
            InvalidMessageError: Any of them is wrong; then nothing is changed.
            RefusedError: They are Kubernetes's, and the caller is no operator.
        """
        async with self._setting:
            self._check_owner()
            settings = self._book.changed(self._settings, wanted)
            if caller.get().role is Role.OPERATOR:
                owner = Owner.KUBERNETES if wanted else Owner.CONTROL_PLANE
                settings = replace(settings, owner=owner)
            await self._become(settings)
            return admin_pb2.SetPolicyResponse(
                settings=self._book.to_wire(settings), version=self._versions[-1].version
            )

    async def roll_back(self, version: int) -> admin_pb2.RollBackPolicyResponse:
        """Sets what a version had, as a new version.

        Raises:
            RefusedError: There is no such version, or the settings are Kubernetes's.
            InvalidMessageError: What it had is not allowed any more; then nothing is changed.
        """
        async with self._setting:
            self._check_owner()
            before = self._settings
            settings = self._of_version(version)
            changes = list(self._book.changes(before, settings))
            await self._become(settings, version)
            return admin_pb2.RollBackPolicyResponse(
                version=self._versions[-1].version, changes=changes
            )

    def versions(self) -> admin_pb2.ListPolicyVersionsResponse:
        """Which settings there were."""
        told = []
        before: PolicySettings | None = None
        for each in self._versions:
            changes = self._book.changes(before, each.settings) if before is not None else ()
            told.append(
                admin_pb2.PolicyVersion(
                    version=each.version,
                    at=timestamp(each.at) if each.at else None,
                    who=each.who,
                    changes=changes,
                    rolls_back_to=each.rolls_back_to,
                )
            )
            before = each.settings
        return admin_pb2.ListPolicyVersionsResponse(versions=told)

    async def try_(self, request: admin_pb2.TryPolicyRequest) -> admin_pb2.TryPolicyResponse:
        """What the next decision would do differently; changes nothing.

        Raises:
            RefusedError: There is no such version.
            InvalidMessageError: A setting is wrong.
        """
        base = self._of_version(request.version) if request.version else self._settings
        settings = self._book.changed(base, request.settings)
        state = self._feed.state
        # Beside the event loop: it decides about the whole cluster, twice.
        found = await asyncio.to_thread(tried, state, self._door.now(), self._policies, settings)
        return admin_pb2.TryPolicyResponse(
            changes=self._book.changes(self._settings, settings),
            differences=map(_to_wire, found.differences),
            refused=found.refused,
        )

    def _of_version(self, version: int) -> PolicySettings:
        known = {each.version: each for each in self._versions}
        if version not in known:
            first, last = self._versions[0].version, self._versions[-1].version
            raise not_found("version", str(version), f"versions {first} to {last} are kept")
        return self._book.as_were(self._settings, known[version].settings)

    def _check_owner(self) -> None:
        mine = self._settings.owner is not Owner.KUBERNETES
        if not mine and caller.get().role is not Role.OPERATOR:
            raise precondition(
                "the settings are owned by Kubernetes and read-only here; use `kubectl edit "
                "clusterpolicies.headrace.dev default`, or the same command of headrace with "
                "--kubeconfig"
            )

    async def _become(self, settings: PolicySettings, rolls_back_to: int = 0) -> None:
        if settings == self._settings:
            return
        who = caller.get().identity
        event = PolicyChanged(settings, self._door.now(), who, rolls_back_to)
        await self._door.append_and_fold(event)


def _to_wire(difference: Difference) -> admin_pb2.PolicyDifference:
    job = difference.record.job
    return admin_pb2.PolicyDifference(
        uid=job.uid,
        namespace=job.namespace,
        name=job.name,
        kind=difference.kind,
        before=_told(difference.before),
        after=_told(difference.after),
    )


def _told(fate: Fate) -> str:
    if fate.target is not None:
        return _place(fate.target)
    if fate.due:
        return "; ".join(map(action_sentence, fate.due))
    return " ".join(_nowhere(fate.reason))


def _nowhere(reason: Reason | None) -> Iterator[str]:
    yield "nothing"
    if reason is not None and reason.message:
        yield f"({reason.message})"


def _place(placement: Placement) -> str:
    count = placement.accelerator_count
    return f"{count} on {', '.join(sorted(placement.nodes))} as {placement.plan}"
