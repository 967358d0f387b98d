"""Synergy's allocation of CPUs, memory and storage (OSDI 2022; steps as in the released code).

Accelerators are given as requested. Of the rest each job wants what it was profiled to need, its
demand. Synergy-Tune leaves nobody out for it: where a demand does not fit, first that job and then
its neighbours fall back to the share that is in proportion to their accelerators.

Resources are tuples of the same order everywhere: CPUs, GB of memory, and whatever follows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

Resources = tuple[float, ...]
Parts = Mapping[str, int]
"""Accelerators by server."""

_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Server:
    """One server, empty.

    Attributes:
        name: Its name.
        accelerators: How many it has.
        resources: What it has beside them.
    """

    name: str
    accelerators: int
    resources: Resources

    @property
    def share(self) -> Resources:
        """What belongs to each accelerator in proportion."""
        return tuple(each / self.accelerators for each in self.resources)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A job that asks.

    Attributes:
        name: Its name.
        accelerators: How many it wants: all or none.
        demand: Of the resources, for each accelerator.
        speedup: How much faster it is with its demand than with its share.
        at: Where it runs and stays; None if it is free to be placed.
    """

    name: str
    accelerators: int
    demand: Resources
    speedup: float = 1.0
    at: Parts | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """What a job is given.

    Attributes:
        parts: Its accelerators by server.
        each: Of the resources, for each accelerator.
        speed: Compared with the proportional share.
    """

    parts: Parts
    each: Resources
    speed: float

    @property
    def total(self) -> Resources:
        """Of the resources in all."""
        count = sum(self.parts.values())
        return tuple(count * each for each in self.each)


class Floor:
    """What is left of the servers while jobs are given their places."""

    def __init__(self, servers: Sequence[Server]) -> None:
        """Everything is free."""
        self.servers = {server.name: server for server in servers}
        self.free = {server.name: server.accelerators for server in servers}
        self.left = {server.name: list(server.resources) for server in servers}
        self.grants: dict[str, Grant] = {}

    def room(self, server: str, each: Resources) -> int:
        """For how many accelerators with so much each there is room on a server."""
        count = self.free[server]
        for left, wanted in zip(self.left[server], each, strict=True):
            if left + _TINY < wanted * count:
                count = min(count, int((left + _TINY) / wanted))
        return max(count, 0)

    def grant(self, name: str, grant: Grant) -> None:
        """Uses it up."""
        self.grants[name] = grant
        self._use(grant, 1)

    def cut(self, name: str) -> None:
        """The job falls back to its share; what it had beyond is left for others."""
        before = self.grants[name]
        self._use(before, -1)
        fair = share_of(self, before.parts)
        self.grant(name, Grant(before.parts, fair, 1.0))

    def _use(self, grant: Grant, sign: int) -> None:
        for server, count in grant.parts.items():
            self.free[server] -= sign * count
            for i, each in enumerate(grant.each):
                self.left[server][i] -= sign * count * each


Find = Callable[[Floor, Tenant, Resources], Parts | None]
"""Where a job can go with so much for each accelerator; None if nowhere."""


def share_of(floor: Floor, parts: Parts) -> Resources:
    """The proportional share of these accelerators, each: of the poorest of their servers."""
    shares = [floor.servers[name].share for name in parts]
    return tuple(min(each) for each in zip(*shares, strict=True))


def in_order(floor: Floor, tenant: Tenant, each: Resources) -> Parts | None:
    """Accelerators in the order of the servers, wherever there is room: as the shipped runs do."""
    return _spread(floor, tenant.accelerators, each, list(floor.servers))


def consolidated(floor: Floor, tenant: Tenant, each: Resources) -> Parts | None:
    """One server that holds all, with the fewest free; else from the fullest servers on."""
    names = sorted(floor.servers, key=floor.free.__getitem__)
    for name in names:
        if floor.room(name, each) >= tenant.accelerators:
            return {name: tenant.accelerators}
    return _spread(floor, tenant.accelerators, each, names)


def _spread(floor: Floor, count: int, each: Resources, names: Sequence[str]) -> Parts | None:
    parts: dict[str, int] = {}
    for name in names:
        part = min(count, floor.room(name, each))
        if part:
            parts[name] = part
            count -= part
        if not count:
            return parts
    return None


def capped(tenant: Tenant, server: Server) -> Tenant:
    """The job with a demand that a server can meet: less speed for less CPUs, and only its share if
    it is larger than a server.
    """
    if tenant.accelerators > server.accelerators:
        return replace(tenant, demand=server.share, speedup=1.0)
    count = tenant.accelerators
    most = tuple(each / count for each in server.resources)
    demand = tuple(min(pair) for pair in zip(tenant.demand, most, strict=True))
    speed, ideal, fair = tenant.speedup, tenant.demand[0], server.share[0]
    if demand[0] < ideal and ideal > fair:
        speed = 1 + (speed - 1) * (demand[0] - fair) / (ideal - fair)
    return replace(tenant, demand=demand, speedup=speed)


@dataclass(frozen=True, slots=True)
class Tuner:
    """How one job after the other is given what there is.

    Attributes:
        find: Where jobs go.
        cuts: Whether demands fall back to shares (Synergy-Tune); if not, a job whose demand does
            not fit is passed over (Synergy-Greedy).
    """

    find: Find = in_order
    cuts: bool = True

    def run(self, servers: Sequence[Server], tenants: Sequence[Tenant]) -> Mapping[str, Grant]:
        """What each job is given; those that get nothing are not in it.

        Args:
            servers: All servers, empty.
            tenants: In the order of the base policy, those that stay where they are first.
        """
        floor = Floor(servers)
        for tenant in tenants:
            if tenant.accelerators <= sum(floor.free.values()):
                self.admit(floor, tenant)
        return floor.grants

    def admit(self, floor: Floor, tenant: Tenant) -> Grant | None:
        """Gives a job its place; None if there is none for it."""
        asked = capped(tenant, max(floor.servers.values(), key=lambda each: each.accelerators))
        found = self._granted(floor, asked)
        if found is None and self.cuts:
            fair = min(server.share for server in floor.servers.values())
            if any(own > each for own, each in zip(asked.demand, fair, strict=True)):
                asked = replace(asked, demand=fair, speedup=1.0)
                found = self._granted(floor, asked)
            if found is None:
                _cut_neighbours(floor, asked)
                found = self._granted(floor, asked)
        return found

    def _granted(self, floor: Floor, tenant: Tenant) -> Grant | None:
        if tenant.at is None:
            parts = self.find(floor, tenant, tenant.demand)
        else:
            fits = all(floor.room(s, tenant.demand) >= n for s, n in tenant.at.items())
            parts = tenant.at if fits else None
        if parts is None:
            return None
        grant = Grant(parts, tenant.demand, tenant.speedup)
        floor.grant(tenant.name, grant)
        return grant


def _cut_neighbours(floor: Floor, tenant: Tenant) -> None:
    """On the first server with enough free accelerators, jobs fall back to their shares one by one,
    those on few servers and with most CPUs first, until the job fits there.
    """
    if tenant.at is not None:
        targets = list(tenant.at.items())
    else:
        wanted = tenant.accelerators
        roomy = [name for name, free in floor.free.items() if free >= wanted]
        if wanted == 1:
            roomy.sort(key=floor.free.__getitem__)
        # A job larger than any server is given its room on each of them.
        every = [(name, free) for name, free in floor.free.items() if free]
        targets = [(roomy[0], wanted)] if roomy else every
    for server, count in targets:
        there = [(name, g) for name, g in floor.grants.items() if server in g.parts]
        there.sort(key=lambda pair: (len(pair[1].parts), *(-each for each in pair[1].each[:2])))
        for name, _ in there:
            if floor.room(server, tenant.demand) >= count:
                break
            floor.cut(name)


def proportional(servers: Sequence[Server], tenants: Sequence[Tenant]) -> Mapping[str, Grant]:
    """Every job at its share: what schedulers do that know of accelerators only."""
    share = servers[0].share
    return Tuner().run(servers, [replace(t, demand=share, speedup=1.0) for t in tenants])
