"""The attribute probe: reads from a clip what the world's ground truth says of it.

A small 3-D convolutional network, trained on rendered clips and on their VAE reconstructions, and shipped with the
demo model, so that "the truck is still a truck" and "the camera pans as before" are measurements.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ..tiny_wan.captions import COLOURS, OBJECTS, PLACES, SEASONS
from ..tiny_wan.files import FRAMES, SIZE

_CLASSES = {"object": OBJECTS, "colour": COLOURS, "place": PLACES, "season": SEASONS}
_PX = 32.0  # lengths leave the network in units of about this many px


@dataclass(frozen=True)
class Course:
    """Where everything is, frame by frame: px, float32, each of shape (clips, frames).

    x, y, width, height: the object's box (centre and size). horizon: its y. pan: how far the camera has moved to the
    right since frame 0, measured on the ground at zoom 1.
    """

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    horizon: Tensor
    pan: Tensor


@dataclass(frozen=True)
class Reading(Course):
    """What the probe sees, and where.

    object, colour, place, season: logits over the classes of `captions`, shape (clips, classes).
    """

    object: Tensor
    colour: Tensor
    place: Tensor
    season: Tensor

    def __getitem__(self, clips: slice | Tensor) -> Reading:
        return Reading(**{f.name: getattr(self, f.name)[clips] for f in fields(self)})

    def names(self, attribute: str) -> list[str]:
        """The most likely class of each clip, for attribute object, colour, place or season."""
        return [_CLASSES[attribute][i] for i in getattr(self, attribute).argmax(1).tolist()]


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv1 = nn.Conv3d(width, width, 3, padding=1)
        self.conv2 = nn.Conv3d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


class AttributeProbe(nn.Module):
    """Features at 4 x 4 px show where the object is; features at 8 x 8 px what the scene and the camera do."""

    def __init__(self, fine: int = 48, coarse: int = 80) -> None:
        super().__init__()
        self.stem = nn.Conv3d(48, fine, (1, 3, 3), padding=(0, 1, 1))
        self.fine = nn.Sequential(_Residual(fine), _Residual(fine))
        self.down = nn.Conv3d(fine, coarse, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.coarse = nn.Sequential(_Residual(coarse), _Residual(coarse), _Residual(coarse))
        self.where = nn.Conv3d(fine + coarse, 1, 1)
        self.size = nn.Linear(fine + coarse, 2)
        self.what = nn.ModuleDict({k: nn.Linear(fine + coarse, len(_CLASSES[k])) for k in ("object", "colour")})
        self.scene = nn.Sequential(nn.Linear(3 * coarse, 128), nn.SiLU())
        self.camera = nn.Linear(128, 2)
        self.setting = nn.ModuleDict({k: nn.Linear(128, len(_CLASSES[k])) for k in ("place", "season")})

    @classmethod
    def load(cls, path: Path) -> AttributeProbe:
        probe = cls()
        probe.load_state_dict({name: value.float() for name, value in load_file(path).items()})
        return probe.eval()

    def forward(self, video: Tensor) -> Reading:
        """Read clips.

        Args:
            video: float in [0, 1], shape (clips, 3, 17, 128, 128).

        Raises:
            ValueError: if the clips have another shape: the probe knows the demo world only.
        """
        if video.shape[1:] != (3, FRAMES, SIZE, SIZE):
            raise ValueError(
                f"The attribute probe reads clips of shape (clips, 3, {FRAMES}, {SIZE}, {SIZE}), "
                f"not {tuple(video.shape)}."
            )
        x = F.pixel_unshuffle(video.transpose(1, 2) * 2 - 1, 4).transpose(1, 2)
        fine = self.fine(self.stem(x))
        coarse = self.coarse(self.down(fine))
        both = torch.cat([fine, F.interpolate(coarse, scale_factor=(1, 2, 2))], dim=1)

        heat = self.where(both).flatten(3).float().softmax(-1)
        cells = SIZE // 4
        centre = (torch.arange(cells, device=video.device) + 0.5) * 4
        grid = heat.unflatten(-1, (cells, cells))[:, 0]
        at_object = torch.einsum("bctn,btn->btc", both.flatten(3).float(), heat[:, 0])
        size = self.size(at_object) * _PX

        flat = coarse.float()
        rows = flat.mean(-1)
        top, bottom = rows[..., : rows.shape[-1] // 2].mean(-1), rows[..., rows.shape[-1] // 2 :].mean(-1)
        scene = self.scene(torch.cat([top, bottom, flat.amax((-1, -2))], dim=1).transpose(1, 2))
        horizon, speed = (self.camera(scene) * _PX).unbind(-1)
        pan = (speed / 8).cumsum(1)
        return Reading(
            x=(grid.sum(-2) * centre).sum(-1),
            y=(grid.sum(-1) * centre).sum(-1),
            width=size[..., 0] + _PX,
            height=size[..., 1] + _PX,
            horizon=horizon + 48,
            pan=pan - pan[:, :1],
            **{k: head(at_object.mean(1)) for k, head in self.what.items()},
            **{k: head(scene.mean(1)) for k, head in self.setting.items()},
        )
