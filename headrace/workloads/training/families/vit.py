"""The vision transformer, which tells classes of images apart."""

from typing import ClassVar

from torch import Tensor

from headrace.api.models import ModelShape
from headrace.workloads.training.families.whole import WholeModel


class Vit(WholeModel):
    """ViT with a linear classifier over its class token."""

    stacks: ClassVar[tuple[str, ...]] = ("vit.layers",)

    def __init__(self, shape: ModelShape) -> None:
        from transformers.initialization import no_init_weights
        from transformers.models.vit.configuration_vit import ViTConfig
        from transformers.models.vit.modeling_vit import ViTForImageClassification

        with no_init_weights():
            config = ViTConfig(
                hidden_size=shape.hidden,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                intermediate_size=shape.intermediate,
                layer_norm_eps=shape.norm_epsilon,
                image_size=shape.image_size,
                patch_size=shape.patch_size,
                num_channels=shape.channels,
                num_labels=shape.vocabulary,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            )
            model = ViTForImageClassification(config)
        super().__init__(model)

    def forward(self, given: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, channels, height, width)."""
        return self.called(pixel_values=given)
