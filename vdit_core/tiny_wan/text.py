"""The demo model's frozen text encoder: one fixed vector per word of the grammar, plus one per position.

It stands where Wan2.1 has UMT5. The table is data (`weights/text_encoder.safetensors`), not a seed, so that the same
prompt gives the same context on every machine and in every torch version.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import VDiTError
from .captions import VOCABULARY, words

LENGTH = 16
WIDTH = 128


class PromptTooLong(VDiTError, ValueError):
    """A prompt has more words than the demo model's context holds."""


class TextEncoder:
    """Maps prompts to contexts of shape (LENGTH, WIDTH), float32. Unused places, and the empty prompt, are zeros."""

    def __init__(self, word_vectors: Tensor, position_vectors: Tensor) -> None:
        if word_vectors.shape != (len(VOCABULARY), WIDTH) or position_vectors.shape != (LENGTH, WIDTH):
            raise ValueError(
                f"The text encoder's tables have shapes {tuple(word_vectors.shape)} and "
                f"{tuple(position_vectors.shape)}; expected ({len(VOCABULARY)}, {WIDTH}) and ({LENGTH}, {WIDTH})."
            )
        self.word_vectors = word_vectors
        self.position_vectors = position_vectors

    @classmethod
    def random(cls, seed: int = 0) -> TextEncoder:
        """New Gaussian tables; used once, before training."""
        generator = torch.Generator().manual_seed(seed)
        return cls(
            torch.randn(len(VOCABULARY), WIDTH, generator=generator),
            0.5 * torch.randn(LENGTH, WIDTH, generator=generator),
        )

    @classmethod
    def load(cls, path: Path) -> TextEncoder:
        """Read the shipped tables; the words that they were made for must be today's vocabulary."""
        with safe_open(path, framework="pt") as file:
            made_for = (file.metadata() or {}).get("words", "").split()
            if tuple(made_for) != VOCABULARY:
                raise ValueError(f"{path} was made for the words {made_for}, not for {list(VOCABULARY)}.")
            return cls(file.get_tensor("words"), file.get_tensor("positions"))

    def save(self, path: Path) -> None:
        tensors = {"words": self.word_vectors, "positions": self.position_vectors}
        save_file(tensors, path, metadata={"words": " ".join(VOCABULARY)})

    def ids(self, prompt: str) -> list[int]:
        """The vocabulary rows of a prompt's words.

        Raises:
            UnknownWord: if a word is not in the vocabulary.
            PromptTooLong: if there are more than LENGTH words.
        """
        found = words(prompt)
        if len(found) > LENGTH:
            raise PromptTooLong(f"{prompt!r} has {len(found)} words; the demo model reads at most {LENGTH}.")
        return [VOCABULARY.index(word) for word in found]

    def context(self, ids: list[int]) -> Tensor:
        """The context of a row of word ids, shape (LENGTH, WIDTH)."""
        context = torch.zeros(LENGTH, WIDTH)
        context[: len(ids)] = self.word_vectors[ids] + self.position_vectors[: len(ids)]
        return context

    def encode(self, prompts: list[str]) -> Tensor:
        """The contexts of several prompts, shape (prompts, LENGTH, WIDTH)."""
        return torch.stack([self.context(self.ids(prompt)) for prompt in prompts])
