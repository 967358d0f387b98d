"""T5: an encoder reads one half, a decoder says the other. T5 1.1 and mT5 are the gated, untied
form.
"""

from typing import ClassVar

from torch import Tensor

from headrace.api.models import T5_DISTANCES, ModelShape
from headrace.workloads.training.families.whole import TiedHead, WholeModel


class T5(WholeModel):
    """T5 with its head for the next token of the decoder."""

    stacks: ClassVar[tuple[str, ...]] = ("encoder.block", "decoder.block")

    def __init__(self, shape: ModelShape) -> None:
        from torch import nn
        from transformers.initialization import no_init_weights
        from transformers.models.t5.configuration_t5 import T5Config
        from transformers.models.t5.modeling_t5 import T5ForConditionalGeneration

        with no_init_weights():
            config = T5Config(
                vocab_size=shape.vocabulary,
                d_model=shape.hidden,
                d_kv=shape.width_of_head,
                d_ff=shape.intermediate,
                num_layers=shape.layers,
                num_decoder_layers=shape.decoder_layers,
                num_heads=shape.heads,
                relative_attention_num_buckets=T5_DISTANCES,
                layer_norm_epsilon=shape.norm_epsilon,
                feed_forward_proj="gated-gelu" if shape.gated else "relu",
                tie_word_embeddings=shape.tied,
                dropout_rate=0.0,
                use_cache=False,
            )
            model = T5ForConditionalGeneration(config)
            # The library's own class ties the head whatever its configuration says.
            model.lm_head = (
                TiedHead(model.shared)
                if shape.tied
                else nn.Linear(shape.hidden, shape.vocabulary, bias=False)
            )
        # Both stacks are given vectors, so that the table has one name only.
        model.encoder.embed_tokens = None
        model.decoder.embed_tokens = None
        super().__init__(model)

    def forward(self, given: Tensor) -> Tensor:
        """Logits (batch, length, vocabulary) of the decoder's next tokens.

        Args:
            given: The encoder's and the decoder's tokens (batch, 2, length).
        """
        table = self.get_submodule("shared")
        return self.called(
            inputs_embeds=table(given[:, 0]), decoder_inputs_embeds=table(given[:, 1])
        )
