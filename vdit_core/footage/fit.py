"""Which sizes and lengths of clips a model takes."""

from __future__ import annotations

from .config import FootageError


def check_fit(width: int, height: int, frames: int, spatial: int, temporal: int) -> None:
    """Raise what speaks against a clip, before a VAE would cut it silently.

    Args:
        width, height: px. spatial: the px of a latent along each side. temporal: its frames, after the first one.

    Raises:
        FootageError: with the nearest sizes and lengths that fit.
    """
    wrong = []
    if width % spatial or height % spatial:
        near = " × ".join(str(_nearest(length, spatial)) for length in (width, height))
        wrong.append(
            f"it is {width} × {height} px, and this model takes multiples of {spatial}: scale or crop it to {near}"
        )
    if (frames - 1) % temporal:
        shorter = max(1, frames - (frames - 1) % temporal)
        lengths = f"{shorter} or {shorter + temporal}" if frames > 1 else str(1 + temporal)
        wrong.append(
            f"it has {frames} frames, and this model takes {temporal} n + 1: cut it or lengthen it to {lengths}"
        )
    if wrong:
        raise FootageError(f"The clip does not fit: {'; '.join(wrong)}.")


def _nearest(length: int, multiple: int) -> int:
    return max(multiple, (length + multiple // 2) // multiple * multiple)
