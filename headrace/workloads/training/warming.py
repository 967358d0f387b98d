"""What a GPU does for the first time takes seconds: a newcomer does it while the others train."""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn

_WIDTH, _HEADS, _POSITIONS, _WORDS = 128, 2, 128, 512


class _Block(nn.Module):
    """A small one of what every family is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(_WORDS, _WIDTH)
        self.norm = nn.LayerNorm(_WIDTH)
        self.three = nn.Linear(_WIDTH, 3 * _WIDTH)
        self.head = nn.Linear(_WIDTH, _WORDS)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        shape = (*tokens.shape, 3, _HEADS, _WIDTH // _HEADS)
        query, key, value = self.three(self.norm(x)).view(shape).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + F.gelu(mixed.transpose(1, 2).reshape(x.shape), approximate="tanh")
        logits: Tensor = self.head(x)
        return logits


def warm_up(device: torch.device) -> None:
    """Have a GPU ready: its context, the kernels of a step, NCCL's library."""
    if device.type != "cuda":
        return
    for number in (torch.float32, torch.bfloat16):
        block = _Block().to(device, number)
        optimiser = torch.optim.AdamW(block.parameters(), fused=True)
        tokens = torch.zeros(2, _POSITIONS, dtype=torch.long, device=device)
        with torch.autocast("cuda", torch.bfloat16, enabled=number is torch.float32):
            logits = block(tokens).flatten(0, 1).float()
        F.cross_entropy(logits, tokens.flatten()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    torch.cuda.synchronize(device)
    torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
