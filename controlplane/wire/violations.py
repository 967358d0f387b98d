"""What is wrong with a message, field by field, as a value."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that is not as it must be.

    Attributes:
        field: Path of the field, e.g. ``node.accelerators[0].id``.
        problem: What was wanted, what came, and what would help.
    """

    field: str
    problem: str

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"


class InvalidMessageError(Exception):
    """A message cannot be translated; carries every violation found."""

    def __init__(self, violations: list[Violation]) -> None:
        super().__init__("; ".join(str(violation) for violation in violations))
        self.violations = tuple(violations)


class Checks:
    """Collects violations while a message is read, so that all are told at once."""

    def __init__(self) -> None:
        self._found: list[Violation] = []

    def wants(self, holds: bool, field: str, wanted: str, got: object) -> None:
        """Notes a violation unless ``holds``."""
        if not holds:
            self._found.append(Violation(field, f"wanted {wanted}, got {got!r}"))

    def refuses(self, field: str, problem: str) -> None:
        """Notes a violation that has its own sentence."""
        self._found.append(Violation(field, problem))

    @property
    def count(self) -> int:
        """Violations noted so far."""
        return len(self._found)

    def finish(self) -> None:
        """Ends the reading.

        Raises:
            InvalidMessageError: Something was noted.
        """
        if self._found:
            raise InvalidMessageError(self._found)
