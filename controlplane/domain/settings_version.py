"""Which settings there were, one after the other."""

from dataclasses import dataclass

from controlplane.domain.clock import Instant
from controlplane.domain.event import PolicyChanged
from controlplane.domain.policy import PolicySettings


@dataclass(frozen=True, slots=True)
class SettingsVersion:
    """What was set at one time.

    Attributes:
        version: Its number, from 1.
        settings: All of the settings.
        at: When they were set; 0 for those that nobody set.
        who: Identity of who did; empty where that was not noted.
        rolls_back_to: The version that this one took up again; 0 if it is none.
    """

    version: int
    settings: PolicySettings
    at: Instant = Instant(0)
    who: str = ""
    rolls_back_to: int = 0


VERSIONS_KEPT = 100
"""The newest, so that a state stays small whatever is set how often."""


def with_version(
    versions: tuple[SettingsVersion, ...], before: PolicySettings, event: PolicyChanged
) -> tuple[SettingsVersion, ...]:
    """The versions and one more, which gets the next number.

    Args:
        versions: What there was; empty where none was counted yet.
        before: The settings before, which are the first version in that case.
        event: What was set then.
    """
    known = versions or (SettingsVersion(1, before),)
    number = known[-1].version + 1
    then = SettingsVersion(number, event.settings, event.at, event.who, event.rolls_back_to)
    return (*known, then)[-VERSIONS_KEPT:]
