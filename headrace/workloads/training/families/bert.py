"""BERT and RoBERTa, which find the tokens that were masked."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from headrace.api.models import ROBERTA_FIRST_POSITION, TOKEN_TYPES, ModelShape
from headrace.workloads.training.families.whole import TiedHead, WholeModel


class _MaskedLanguageModel(WholeModel):
    """A bidirectional encoder; its positions and token types are given with every call.

    Attributes:
        first_position: Row of the table of positions for the first token.
    """

    first_position: ClassVar[int]

    def forward(self, given: Tensor) -> Tensor:
        """Logits (batch, length, vocabulary) of tokens (batch, length)."""
        places = torch.arange(given.shape[1], device=given.device) + self.first_position
        return self.called(
            input_ids=given,
            position_ids=places.expand(given.shape),
            token_type_ids=torch.zeros_like(given),
        )


class Bert(_MaskedLanguageModel):
    """BERT with its head for masked tokens."""

    stacks: ClassVar[tuple[str, ...]] = ("bert.encoder.layer",)
    first_position: ClassVar[int] = 0

    def __init__(self, shape: ModelShape) -> None:
        from transformers.initialization import no_init_weights
        from transformers.models.bert.configuration_bert import BertConfig
        from transformers.models.bert.modeling_bert import BertForMaskedLM

        with no_init_weights():
            model = BertForMaskedLM(
                BertConfig(max_position_embeddings=shape.sequence_length, **_sizes(shape))
            )
        embeddings, predictions = model.bert.embeddings, model.cls.predictions
        predictions.decoder = TiedHead(embeddings.word_embeddings, predictions)
        del embeddings.position_ids, embeddings.token_type_ids
        super().__init__(model)


class Roberta(_MaskedLanguageModel):
    """RoBERTa with its head for masked tokens."""

    stacks: ClassVar[tuple[str, ...]] = ("roberta.encoder.layer",)
    first_position: ClassVar[int] = ROBERTA_FIRST_POSITION

    def __init__(self, shape: ModelShape) -> None:
        from transformers.initialization import no_init_weights
        from transformers.models.roberta.configuration_roberta import RobertaConfig
        from transformers.models.roberta.modeling_roberta import RobertaForMaskedLM

        with no_init_weights():
            model = RobertaForMaskedLM(
                RobertaConfig(
                    max_position_embeddings=shape.sequence_length + self.first_position,
                    pad_token_id=ROBERTA_FIRST_POSITION - 1,
                    **_sizes(shape),
                )
            )
        embeddings = model.roberta.embeddings
        model.lm_head.decoder = TiedHead(embeddings.word_embeddings, model.lm_head)
        del embeddings.position_ids, embeddings.token_type_ids
        super().__init__(model)


def _sizes(shape: ModelShape) -> dict[str, Any]:
    return {
        "vocab_size": shape.vocabulary,
        "type_vocab_size": TOKEN_TYPES[shape.family],
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate,
        "layer_norm_eps": shape.norm_epsilon,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
