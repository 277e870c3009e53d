"""Vision-language model: images and instructions in, features of tapped layers out.

Decoder layers 0, 3, 6 .. are read by hooks at their output, before the DeepStack
residual that the language model adds after its first layers. Layers after the last
tap are removed.

Letters: B batch, C cameras, L tokens, V vision tokens per camera, d width, N taps.
"""

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from apt_policy.model.batch import Images, VlFeatures
from apt_policy.model.config import TAP_STRIDE, VlmConfig, VlmMode
from apt_policy.model.vlm.load import Backbone, load_backbone
from apt_policy.model.vlm.pixels import covered_tokens, patches, token_means
from apt_policy.model.vlm.prompt import IMAGE_TOKEN, tokenize

LORA = {'r': 16, 'lora_alpha': 16, 'bias': 'none',
        'target_modules': ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']}
FLOAT32_NAMES = ('norm', 'patch_embed', 'pos_embed', 'embed_tokens')
"""Parts of the names of parameters that stay float32 when the whole model is trained."""


class VlmBridge(nn.Module):
    """Qwen3-VL up to its last tap."""

    def __init__(self, config: VlmConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.model = backbone.model
        self._tokenizer, self._image = backbone.tokenizer, backbone.image
        self._image_token = cast(int, self._tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))
        language = self._language
        self._taps = tuple(range(0, len(language.layers), TAP_STRIDE))
        language.layers = language.layers[:self._taps[-1] + 1]
        language.norm = nn.Identity()
        self._prepare_to_learn()

    @property
    def taps(self) -> int:
        """Number of layers that are read (N)."""
        return len(self._taps)

    @property
    def decoder_layers(self) -> int:
        """Number of layers that are run."""
        return len(self._language.layers)

    @property
    def width(self) -> int:
        """Channels of a feature (d)."""
        return int(self._language.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    def tokens_per_camera(self, side: int) -> int:
        """Count the vision tokens of one image of ``side`` x ``side`` [px] (V)."""
        return self._image.tokens(side)

    def token_positions(self, images: Images) -> Tensor:
        """Compute the mean normalised pixel coordinates (B, C, V, 2) of each token; the model is not run."""
        return token_means(images.norm_xy, self._image)

    def train(self, mode: bool = True) -> 'VlmBridge':
        """Set training mode; a frozen model stays in evaluation mode."""
        return super().train(mode and self.config.mode is not VlmMode.FROZEN)

    def forward(self, images: Images) -> VlFeatures:
        """Compute the features of B samples.

        Raises:
            PromptError: an instruction is too long or contains reserved tokens.
            ValueError: the image size does not fit the vision encoder.
        """
        valid = images.camera_valid
        per_camera = self._image.tokens(images.rgb.shape[-1])
        ids, attended = (t.to(self.device) for t in tokenize(
            self._tokenizer, images.prompts, images=valid.sum(-1).tolist(), tokens_per_image=per_camera,
            max_text_tokens=self.config.max_text_tokens))
        is_vision = ids == self._image_token
        with self._computing():
            embeds, hidden = self._read(ids, attended, images.rgb[valid])
        unpadded = attended[..., None]
        # Vision tokens of the sequence and covered_tokens of the valid cameras have the same order.
        attended = attended.clone()
        attended[is_vision] &= covered_tokens(images.mask, self._image)[valid].flatten()
        return VlFeatures(inputs_embeds=embeds.masked_fill(~unpadded, 0.0),
                          hidden_states=hidden.masked_fill(~unpadded, 0.0),
                          attention_mask=attended, is_vision=is_vision, camera_valid=valid,
                          norm_xy=self.token_positions(images))

    def _read(self, ids: Tensor, attended: Tensor, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """Run the model and return input embeddings (B, L, d) and outputs of the taps (N, B, L, d)."""
        pixels, grid = patches(rgb, self._image) if len(rgb) else (None, None)
        embeds: list[Tensor] = []
        outputs: list[Tensor] = []
        layers = self._language.layers
        with ExitStack() as hooks:
            # Hooks are removed after this run, because gradient checkpointing runs layers again in the backward pass.
            first = layers[0].register_forward_pre_hook(lambda _, args: embeds.append(args[0]))
            hooks.callback(first.remove)
            for tap in self._taps:
                hook = layers[tap].register_forward_hook(lambda *call: outputs.append(call[-1]))
                hooks.callback(hook.remove)
            self.model(input_ids=ids, attention_mask=attended.long(), pixel_values=pixels,
                       image_grid_thw=grid, mm_token_type_ids=(ids == self._image_token).int(),
                       use_cache=False)
        return embeds[0], torch.stack(outputs)

    def _computing(self) -> AbstractContextManager[Any]:
        if self.config.mode is VlmMode.FROZEN:
            return torch.no_grad()
        if self.config.mode is VlmMode.FULL and self.config.dtype != 'float32':
            return torch.autocast(self.device.type, dtype=getattr(torch, self.config.dtype))
        return nullcontext()

    def _prepare_to_learn(self) -> None:
        mode = self.config.mode
        self.model.requires_grad_(mode is VlmMode.FULL)
        if mode is VlmMode.LORA:
            # Only adapters need it, and it takes a second to import.
            from peft import LoraConfig, inject_adapter_in_model
            inject_adapter_in_model(LoraConfig(**LORA), self.model)
        if mode is VlmMode.FULL:
            for name, parameter in self.model.named_parameters():
                if any(part in name for part in FLOAT32_NAMES):
                    parameter.data = parameter.data.float()
        if self.config.gradient_checkpointing and mode is not VlmMode.FROZEN:
            cast(Any, self.model).gradient_checkpointing_enable({'use_reentrant': False})
        self.train()

    @property
    def _language(self) -> Any:
        return cast(Any, self.model).language_model


def build_bridge(config: VlmConfig, device: torch.device) -> VlmBridge:
    """Load the backbone that ``config`` names and wrap it.

    Raises:
        VlmError: the backbone cannot be loaded.
    """
    return VlmBridge(config, load_backbone(config, device))
