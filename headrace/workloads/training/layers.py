"""torch's layers without their initial weights, which ``models`` draws by seed and name instead.

Besides the double work, torch's own initialisation on the meta device (for ranks that are given
their weights) would load its compiler, which takes seconds.
"""

from torch import nn


class Linear(nn.Linear):
    """A linear map."""

    def reset_parameters(self) -> None:
        """Left to ``models``."""


class Embedding(nn.Embedding):
    """A table of vectors."""

    def reset_parameters(self) -> None:
        """Left to ``models``."""


class LayerNorm(nn.LayerNorm):
    """Layer normalisation."""

    def reset_parameters(self) -> None:
        """Left to ``models``."""
