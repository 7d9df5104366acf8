"""One conditioning and one latent for several prompts: batch item n samples prompt n, all from the same noise."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .packed import is_packed, packed, repeated


def batch(prompts: list[list[Any]], latent: dict[str, Any], fill: bool = True) -> tuple[list[Any], dict[str, Any]]:
    """Join prompts and repeat a latent.

    Args:
        prompts: ComfyUI conditionings of one entry each, [[context (1, length, width), options]].
        latent: a LATENT of one item. fill: whether shorter prompts may be filled with zeros (`fills_text`).

    Returns:
        A conditioning whose context is (prompts, length, width), shorter ones filled with zeros as Wan fills its text,
        and a LATENT with `batch_index` all 0, by which ComfyUI gives each item the noise of the first.

    Raises:
        ValueError: naming the prompt with several entries, other options or another length, or a latent of several
            items.
    """
    for n, prompt in enumerate(prompts):
        if len(prompt) != 1 or len(prompt[0][0]) != 1:
            raise ValueError(
                f"{_name(n)} is {len(prompt)} conditionings of {len(prompt[0][0])} prompts; live transfer takes one "
                "prompt each. Do not combine or batch prompts before it."
            )
        if different := _differences(prompts[0][0][1], prompt[0][1]):
            raise ValueError(
                f"{_name(n)} and the source differ in {', '.join(different)}; live transfer samples them in one batch, "
                "which has one of each. Apply the node that sets it to all prompts alike."
            )
    contexts = [prompt[0][0] for prompt in prompts]
    length = max(context.shape[1] for context in contexts)
    if not fill and any(context.shape[1] != length for context in contexts):
        lengths = " and ".join(str(context.shape[1]) for context in contexts)
        raise ValueError(
            f"The prompts are {lengths} tokens long, and this model takes prompts of one length in a batch. Write them "
            "equally long, or use Record Attention and Transfer Attention, which sample one video after the other."
        )
    joined = torch.cat([F.pad(context, (0, 0, 0, length - context.shape[1])) for context in contexts])
    return [[joined, dict(prompts[0][0][1])]], _repeated(latent, len(prompts))


def other_inputs(
    positive: list[Any],
    latent: dict[str, Any],
    given: dict[str, list[dict[str, Any]]],
    sampled: Tensor,
    noise: Tensor,
) -> str | None:
    """What of a joined conditioning and a repeated latent is not what the sampler was given; None if it was given both.

    Args:
        positive, latent: as `batch` made them. given: the guider's conditionings by kind. sampled: its latent. noise:
            what is added to that; nothing where a sampler goes on from another one's latent, as a second expert does.
    """
    own = positive[0][0]
    prompts = [entry.get("cross_attn") for entry in given.get("positive") or ()]
    wrong = []
    if not any(isinstance(prompt, Tensor) and _same(prompt, own) for prompt in prompts):
        wrong.append("positive")
    expected = packed(latent["samples"])
    goes_on = not bool(noise.any())
    if sampled.shape != expected.shape or not (goes_on or torch.equal(sampled.float().cpu(), expected.float().cpu())):
        wrong.append("latent")
    if not wrong:
        return None
    return f"the sampler's {' and '.join(wrong)} {'are' if len(wrong) > 1 else 'is'} not Live Transfer's own"


def _repeated(latent: dict[str, Any], count: int) -> dict[str, Any]:
    samples = latent["samples"]
    if len(packed(samples)) != 1:
        raise ValueError(
            f"The latent holds {len(packed(samples))} videos; live transfer repeats one. Use a batch size of 1."
        )
    index = latent.get("batch_index", [0])[0]
    found = latent | {"samples": repeated(samples, count), "batch_index": [index] * count}
    mask = latent.get("noise_mask")
    return found if mask is None else found | {"noise_mask": repeated(mask if is_packed(mask) else mask[:1], count)}


def _name(n: int) -> str:
    return "The source" if n == 0 else f"Target {n}"


def _differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """The options of two conditionings that are not the same."""
    return sorted(key for key in a.keys() | b.keys() if not _same(a.get(key), b.get(key)))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return a is b or (type(a) is type(b) and not isinstance(a, Tensor) and a == b)
