"""The demo model as ComfyUI's MODEL, CLIP and VAE: stock objects over the shipped files."""

from __future__ import annotations

from functools import partial
from typing import Any

import comfy.model_management
import comfy.sd
import comfy.utils
import torch
from torch import Tensor, nn

from ...tiny_wan.files import SHIFT, TEXT_ENCODER, TRANSFORMER, VAE, WEIGHTS
from ...tiny_wan.text import TextEncoder
from . import demo_preview

_NAME = "vdit_demo"


def load() -> tuple[Any, Any, Any]:
    """MODEL (with the shift it was trained with; ComfyUI's own for Wan is 8), CLIP and VAE."""
    model, vae = _model(), _vae()
    demo_preview.add(model, vae)
    return model, _clip(), vae


def _model() -> Any:
    model = comfy.sd.load_diffusion_model(str(WEIGHTS / TRANSFORMER))
    sampling = type(model.get_model_object("model_sampling"))(model.model.model_config)
    sampling.set_parameters(shift=SHIFT)
    model.add_object_patch("model_sampling", sampling)
    return model


def _vae() -> Any:
    weights, metadata = comfy.utils.load_torch_file(str(WEIGHTS / VAE), return_metadata=True)
    vae = comfy.sd.VAE(sd=weights, metadata=metadata)
    vae.throw_exception_if_invalid()
    if torch.backends.mkldnn.is_available():
        for conv in (module for module in vae.first_stage_model.modules() if isinstance(module, nn.Conv3d)):
            conv._conv_forward = partial(_convolve, conv)  # type: ignore[method-assign]
    return vae


def _convolve(conv: nn.Conv3d, x: Tensor, weight: Tensor, bias: Tensor | None, **padding: Any) -> Tensor:
    """The demo VAE's convolution by oneDNN. PyTorch leaves it to a way that takes several times as long where frames
    are as small as the demo's: a video was decoded in 8.7 s of a core, now in 2.5."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and not any(padding.values()):
        assert not isinstance(conv.padding, str)
        return torch.mkldnn_convolution(x, weight, bias, conv.padding, conv.stride, conv.dilation, conv.groups)
    return type(conv)._conv_forward(conv, x, weight, bias, **padding)


def _clip() -> Any:
    class Target:
        """What `comfy.sd.CLIP` asks for."""

        params: dict[str, Any] = {}  # noqa: RUF012 - ComfyUI copies it
        clip = _Encoder
        tokenizer = _Tokenizer

    return comfy.sd.CLIP(Target(), parameters=0)


class _Tokenizer:
    """Words to rows of the demo model's vocabulary; an unknown word is an error that lists the known ones."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
        self.text = TextEncoder.load(WEIGHTS / TEXT_ENCODER)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_: Any) -> dict[str, list[Any]]:
        return {_NAME: [[(i, 1.0) for i in self.text.ids(text)]]}

    def state_dict(self) -> dict[str, Any]:
        return {}


class _Encoder(nn.Module):
    """Vocabulary rows to the context of the transformer."""

    def __init__(self, device: Any = None, dtype: Any = None, model_options: Any = None) -> None:
        super().__init__()
        self.text = TextEncoder.load(WEIGHTS / TEXT_ENCODER)
        self.dtypes = {torch.float32}
        self.mark = nn.Parameter(torch.zeros(1), requires_grad=False)  # ComfyUI moves parameters; a model must have one

    def set_clip_options(self, options: dict[str, Any]) -> None:
        """Nothing to choose."""

    def reset_clip_options(self) -> None:
        """Nothing to choose."""

    def encode_token_weights(self, tokens: dict[str, list[Any]]) -> tuple[Tensor, None]:
        context = self.text.context([i for i, _ in tokens[_NAME][0]])
        return context[None].to(comfy.model_management.intermediate_device()), None

    def load_sd(self, weights: dict[str, Tensor]) -> tuple[list[Any], list[Any]]:
        return [], []
