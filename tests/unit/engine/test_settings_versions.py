"""Which settings there were, as the state remembers them."""

from dataclasses import replace

from controlplane.domain import codec
from controlplane.domain.event import PolicyChanged
from controlplane.domain.policy import PolicySettings
from controlplane.domain.settings_version import VERSIONS_KEPT
from controlplane.engine.state import ClusterState
from tests.builders import World


def test_each_change_is_a_version_with_who_and_when() -> None:
    built = World().tell(PolicyChanged(PolicySettings(period_seconds=2.0), who="ann"))
    first, made, last = built.state.settings_versions
    assert (first.version, first.settings, first.at) == (1, PolicySettings(), 0)
    assert (made.version, made.settings.policy) == (2, "equal-share")
    assert (last.version, last.who, last.at) == (3, "ann", built.now)
    assert last.settings == built.state.settings == PolicySettings(period_seconds=2.0)


def test_the_oldest_versions_are_forgotten() -> None:
    built = World()
    for i in range(VERSIONS_KEPT + 5):
        built.with_settings(period_seconds=1.0 + i)
    versions = built.state.settings_versions
    assert len(versions) == VERSIONS_KEPT
    assert versions[-1].version - versions[0].version == VERSIONS_KEPT - 1
    assert versions[-1].settings == built.state.settings


def test_a_state_that_was_stored_without_versions_counts_from_what_it_had() -> None:
    stored = codec.dump(
        replace(World().state, settings=PolicySettings(policy="fifo")), ClusterState
    ).replace('"settings_versions"', '"of_no_release"')
    world = World()
    world.state = codec.load(stored, ClusterState)
    assert not world.state.settings_versions
    world.with_settings(period_seconds=3.0)
    first, then = tuple(world.state.settings_versions)
    assert (first.version, first.settings) == (1, PolicySettings(policy="fifo"))
    assert (then.version, then.settings) == (2, world.state.settings)


def test_an_event_that_was_stored_without_who_is_read() -> None:
    text = '{"settings": {"policy": "fifo"}, "at": 5, "kind": "PolicyChanged"}'
    event = codec.load_event(text)
    assert event == PolicyChanged(PolicySettings(policy="fifo"), at=event.at)
    assert isinstance(event, PolicyChanged)
    assert (event.who, event.settings.knobs) == ("", ())
