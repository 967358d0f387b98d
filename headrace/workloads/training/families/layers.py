"""torch's layers without initial weights, which ``initial`` draws by seed and name instead."""

from torch import nn


class Linear(nn.Linear):
    """A linear map."""

    def reset_parameters(self) -> None:
        """Left to ``initial``."""


class Embedding(nn.Embedding):
    """A table of vectors."""

    def reset_parameters(self) -> None:
        """Left to ``initial``."""


class LayerNorm(nn.LayerNorm):
    """Layer normalisation."""

    def reset_parameters(self) -> None:
        """Left to ``initial``."""


class RMSNorm(nn.RMSNorm):
    """Root-mean-square normalisation."""

    def reset_parameters(self) -> None:
        """Left to ``initial``."""
