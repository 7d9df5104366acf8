"""Paints the clips of the synthetic world: anti-aliased shapes from signed distances, all clips and frames at once.

Back to front: sky and clouds, hills, trees, ground, road, grass, the object. Every layer is drawn in stage
coordinates (pixels at zoom 1, camera at rest); its parallax says how much of the camera's pan moves it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vdit_core.tiny_wan.captions import COLOURS, PLACES
from vdit_core.tiny_wan.files import FRAMES, SIZE

from .world import CENTRE, CLOUDS, TREES, TUFTS, Scenes

_PALETTE = {
    "red": (0.82, 0.10, 0.10),
    "blue": (0.12, 0.27, 0.80),
    "yellow": (0.95, 0.80, 0.10),
    "green": (0.05, 0.52, 0.22),
    "white": (0.95, 0.95, 0.95),
    "black": (0.12, 0.12, 0.14),
    "brown": (0.50, 0.30, 0.14),
}

# Summer and winter, in the order of `captions.SEASONS`.
_SKY_TOP = ((0.30, 0.55, 0.88), (0.62, 0.68, 0.76))
_SKY_LOW = ((0.78, 0.88, 0.96), (0.86, 0.88, 0.90))
_CLOUD = ((1.00, 1.00, 1.00), (0.76, 0.79, 0.83))
_HILL = ((0.38, 0.55, 0.45), (0.74, 0.79, 0.86))
_CROWN = ((0.13, 0.40, 0.16), (0.50, 0.62, 0.64))
_TRUNK = ((0.36, 0.24, 0.14), (0.32, 0.25, 0.22))
_FIELD = ((0.46, 0.68, 0.26), (0.93, 0.95, 0.98))
_TUFT = ((0.27, 0.48, 0.15), (0.70, 0.77, 0.86))
_ROAD = ((0.36, 0.36, 0.38), (0.56, 0.58, 0.62))
_VERGE = ((0.62, 0.58, 0.46), (0.84, 0.87, 0.92))
_MARK = ((0.95, 0.93, 0.85), (0.97, 0.97, 0.98))

_GLASS = (0.62, 0.78, 0.90)
_RUBBER = (0.10, 0.10, 0.11)
_RIM = (0.72, 0.72, 0.74)
_LAMP = (1.00, 0.93, 0.55)
_BRAKE = (0.75, 0.12, 0.10)
_STEEL = (0.22, 0.22, 0.24)

Point = tuple[float | Tensor, float | Tensor]


def disc(x: Tensor, y: Tensor, centre: Point, radius: float | Tensor, squash: float = 1.0) -> Tensor:
    """Signed distance to a disc; `squash` > 1 flattens it."""
    return torch.hypot(x - centre[0], (y - centre[1]) * squash) - radius


def box(x: Tensor, y: Tensor, left: float, right: float, low: float, high: float, round_: float = 0.0) -> Tensor:
    """Signed distance to an axis-parallel box with rounded corners."""
    dx = (x - (left + right) / 2).abs() - ((right - left) / 2 - round_)
    dy = (y - (low + high) / 2).abs() - ((high - low) / 2 - round_)
    return torch.hypot(dx.clamp(min=0), dy.clamp(min=0)) + torch.maximum(dx, dy).clamp(max=0) - round_


def capsule(x: Tensor, y: Tensor, start: Point, end: Point, radius: float) -> Tensor:
    """Signed distance to a line segment of a given thickness."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    px, py = x - start[0], y - start[1]
    t = ((px * dx + py * dy) / (dx * dx + dy * dy)).clamp(0, 1)
    return torch.hypot(px - t * dx, py - t * dy) - radius


def convex(x: Tensor, y: Tensor, *corners: tuple[float, float]) -> Tensor:
    """Signed distance (a bound outside the corners) to a convex polygon, its corners counter-clockwise."""
    edges = [
        ((x - ax) * (by - ay) - (y - ay) * (bx - ax)) / math.hypot(bx - ax, by - ay)
        for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True)
    ]
    return functools.reduce(torch.maximum, edges)


def union(distances: list[Tensor]) -> Tensor:
    """Signed distance to all of several shapes."""
    return functools.reduce(torch.minimum, distances)


class _Canvas:
    """The picture under the brush: (clips, frames, 3, height, width), float32 in [0, 1]."""

    def __init__(self, scenes: Scenes, image: Tensor | None = None) -> None:
        self.scenes = scenes
        self.zoom = scenes.zoom()[:, :, None, None]
        pixel = torch.arange(SIZE, device=scenes.device) + 0.5 - CENTRE
        self.x = pixel[None, None, None, :] / self.zoom + CENTRE
        self.y = pixel[None, None, :, None] / self.zoom + CENTRE
        self.pan = scenes.camera()[:, :, None, None]
        blank = (len(scenes.seeds), FRAMES, 3, SIZE, SIZE)
        self.image = torch.zeros(blank, device=scenes.device) if image is None else image

    def of(self, values: Tensor) -> Tensor:
        """Per-clip values (clips,) shaped to broadcast over frames and pixels."""
        return values[:, None, None, None]

    def season(self, pair: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
        """The colour of each clip's season, shape (clips, 3)."""
        return torch.tensor(pair, device=self.scenes.device)[self.scenes.season]

    def fill(self, coverage: Tensor, colour: Tensor | tuple[float, ...]) -> None:
        """Lay a colour, (3,) or (clips, 3), over the picture where `coverage` (0..1) says."""
        colour = torch.as_tensor(colour, device=self.image.device).expand(len(self.image), 3)
        self.image += coverage[:, :, None] * (colour[:, None, :, None, None] - self.image)

    def shape(
        self,
        distance: Tensor,
        colour: Tensor | tuple[float, ...],
        scale: Tensor | float = 1.0,
        soft: float = 1.0,
        alpha: Tensor | float = 1.0,
    ) -> None:
        """Paint a signed distance; `scale` is its px per unit at zoom 1, `soft` the width of its edge in px."""
        coverage = (0.5 - distance * scale * self.zoom / soft).clamp(0, 1)
        self.fill(coverage * alpha, colour)


def render(scenes: Scenes) -> Tensor:
    """Paint the clips.

    Returns:
        float32 in [0, 1], shape (clips, 3, frames, height, width).
    """
    canvas = _Canvas(scenes)
    _sky(canvas)
    _hills(canvas)
    _trees(canvas)
    _ground(canvas)
    _object(canvas)
    return canvas.image.clamp(0, 1).transpose(1, 2)


def _sky(c: _Canvas) -> None:
    s = c.scenes
    c.fill(torch.ones_like(c.zoom), c.season(_SKY_TOP))
    c.fill((c.y / c.of(s.horizon)).clamp(0, 1) ** 1.5, c.season(_SKY_LOW))
    x, y = s.draw("cloud.x", -10, 24, CLOUDS), s.draw("cloud.y", 6, 26, CLOUDS)
    size = s.draw("cloud.size", 5, 9, CLOUDS)
    px = c.x + 0.12 * c.pan
    lobes = ((-1.1, 0.15, 0.9), (0.0, -0.25, 1.2), (1.1, 0.15, 0.8))
    clouds = []
    for i in range(CLOUDS):
        cx, cy, r = (c.of(v[:, i]) for v in (x + i * 44, y, size))
        clouds += [disc(px, c.y, (cx + dx * r, cy + dy * r), k * r, 1.7) for dx, dy, k in lobes]
    c.shape(union(clouds), c.season(_CLOUD), soft=4.0, alpha=0.85)


def _hills(c: _Canvas) -> None:
    s = c.scenes
    px = c.x + 0.3 * c.pan
    wave = torch.sin(px / c.of(s.draw("hill.period", 14, 22)) + c.of(s.draw("hill.phase", 0, 6.28)))
    top = c.of(s.horizon) - 5 - c.of(s.draw("hill.height", 2, 5)) * (1 + wave)
    c.shape(top - c.y, c.season(_HILL))


def _trees(c: _Canvas) -> None:
    """A row of trees on the horizon: round or pointed crowns, a kind per clip."""
    s = c.scenes
    pointed = c.of((s.draw("tree.kind", 0, 1) < 0.5).float())
    foot = c.of(s.horizon) + 1
    px = c.x + 0.6 * c.pan
    jitter, size = s.draw("tree.x", 0, 26, TREES), s.draw("tree.size", 6, 11, TREES)
    absent = s.draw("tree.absent", 0, 1, TREES) < 0.2
    trunks, crowns = [], []
    for i in range(TREES):
        r = c.of(size[:, i].masked_fill(absent[:, i], -20))
        cx = c.of(jitter[:, i] + i * 36 - 92)
        trunks.append(torch.maximum((px - cx).abs() - 0.14 * r, torch.maximum(foot - 1.2 * r - c.y, c.y - foot)))
        round_crown = disc(px, c.y, (cx, foot - 1.9 * r), r, 0.9)
        cone = torch.maximum((px - cx).abs() * 0.9 + (foot - 3.2 * r - c.y) * 0.42, c.y - (foot - 0.7 * r))
        crowns.append(torch.lerp(round_crown, cone, pointed))
    c.shape(union(trunks), c.season(_TRUNK))
    c.shape(union(crowns), c.season(_CROWN))


def _ground(c: _Canvas) -> None:
    s = c.scenes
    c.shape(c.of(s.horizon) - c.y, c.season(_FIELD))
    depth = ((c.y - c.of(s.horizon)) / 90).clamp(0, 1)
    c.fill(0.22 * depth * (c.y > c.of(s.horizon)), c.season(_TUFT))
    px = c.x + c.pan
    highway = c.of((s.place == PLACES.index("highway")).float())

    tuft_x, tuft_y = s.draw("tuft.x", 0, 18, TUFTS), s.draw("tuft.y", 0, 1, TUFTS)
    size = s.draw("tuft.size", 2.0, 3.6, TUFTS)
    tufts = []
    for i in range(TUFTS):
        at = c.of(tuft_x[:, i] + i * 20 - 96), c.of(s.horizon + 8 + tuft_y[:, i] * (124 - s.horizon))
        tufts.append(disc(px, c.y, at, c.of(size[:, i]), 1.6))
    c.shape(union(tufts), c.season(_TUFT), soft=1.6)

    far, near = c.of(s.ground - s.draw("road.far", 10, 15)), c.of(s.ground + s.draw("road.near", 7, 11))
    for grow, colour in ((3.0, _VERGE), (0.0, _ROAD)):
        c.shape(torch.maximum(far - grow - c.y, c.y - near - grow), c.season(colour), alpha=highway)
    for y in (far + 1.5, near - 1.5):
        c.shape((c.y - y).abs() - 0.6, c.season(_MARK), alpha=0.8 * highway)
    phase = (px + c.of(s.draw("road.dash", 0, 28))) % 28 - 14
    middle = c.of(s.ground) - 0.35 * (c.of(s.ground) - far)
    c.shape(torch.maximum(phase.abs() - 6.5, (c.y - middle).abs() - 0.9), c.season(_MARK), alpha=highway)
    post = (px + c.of(s.draw("road.post", 0, 40))) % 40 - 20
    rail = torch.maximum(post.abs() - 0.9, torch.maximum(far - 9 - c.y, c.y - far + 2))
    rail = torch.minimum(rail, (c.y - far + 7.5).abs() - 0.9)
    c.shape(rail, (0.55, 0.57, 0.60), alpha=highway)


class _Brush:
    """Paints in the object's own frame: unit = its width, u forward from its centre, v up from the ground."""

    def __init__(self, canvas: _Canvas) -> None:
        s = canvas.scenes
        self.canvas, self.width = canvas, canvas.of(s.width)
        self.u = (canvas.x - s.path()[:, :, None, None]) / self.width * canvas.of(s.facing)
        self.v = (canvas.of(s.ground) - canvas.y) / self.width
        shade = s.draw("shade", 0.9, 1.08)[:, None]
        self.colour = (torch.tensor([_PALETTE[c] for c in COLOURS], device=s.device)[s.colour] * shade).clamp(0, 1)
        self.stride = canvas.of(s.speed.abs() / s.width) * s.time()[:, :, None, None]

    def __call__(
        self,
        shape: Callable[..., Tensor],
        *args: Any,
        colour: Tensor | tuple[float, ...] | None = None,
        light: float = 1.0,
        alpha: float = 1.0,
        soft: float = 1.0,
    ) -> None:
        colour = self.colour if colour is None else torch.tensor(colour, device=self.u.device)
        self.canvas.shape(shape(self.u, self.v, *args), (colour * light).clamp(0, 1), self.width, soft, alpha)


def _object(c: _Canvas) -> None:
    for kind, paint in enumerate((_car, _truck, _dog)):
        clips = (c.scenes.object == kind).nonzero()[:, 0]
        if len(clips):
            part = _Canvas(c.scenes[clips], c.image[clips])
            brush = _Brush(part)
            brush(disc, (0.0, 0.0), 0.50, 9.0, colour=(0.05, 0.06, 0.08), alpha=0.45, soft=3.0)
            paint(brush)
            c.image[clips] = part.image


def _wheel(b: _Brush, at: float, radius: float) -> None:
    b(disc, (at, radius), radius, colour=_RUBBER)
    b(disc, (at, radius), radius * 0.52, colour=_RIM)


def _car(b: _Brush) -> None:
    b(convex, (-0.34, 0.22), (0.28, 0.22), (0.12, 0.43), (-0.24, 0.43), light=0.92)
    b(convex, (-0.28, 0.25), (-0.06, 0.25), (-0.06, 0.40), (-0.21, 0.40), colour=_GLASS)
    b(convex, (-0.02, 0.25), (0.21, 0.25), (0.10, 0.40), (-0.02, 0.40), colour=_GLASS)
    b(box, -0.5, 0.5, 0.08, 0.27, 0.06)
    b(box, -0.47, 0.47, 0.08, 0.13, 0.02, light=0.7)
    b(box, 0.44, 0.5, 0.18, 0.23, 0.02, colour=_LAMP)
    b(box, -0.5, -0.45, 0.18, 0.23, 0.02, colour=_BRAKE)
    _wheel(b, -0.29, 0.105)
    _wheel(b, 0.29, 0.105)


def _truck(b: _Brush) -> None:
    b(box, -0.48, 0.46, 0.07, 0.14, 0.01, colour=_STEEL)
    b(box, -0.5, 0.17, 0.14, 0.55, 0.015)
    b(box, -0.5, 0.17, 0.14, 0.19, 0.0, light=0.7)
    for seam in (-0.28, -0.06):
        b(box, seam - 0.008, seam + 0.008, 0.20, 0.53, 0.0, light=0.75)
    b(convex, (0.20, 0.10), (0.5, 0.10), (0.5, 0.26), (0.43, 0.43), (0.20, 0.43), light=0.88)
    b(convex, (0.29, 0.26), (0.475, 0.26), (0.41, 0.40), (0.29, 0.40), colour=_GLASS)
    b(box, 0.45, 0.5, 0.13, 0.18, 0.015, colour=_LAMP)
    for at in (-0.37, -0.18, 0.33):
        _wheel(b, at, 0.09)


def _dog(b: _Brush) -> None:
    swing = torch.sin(b.stride * 2 * math.pi / 0.9)
    lift = torch.cos(b.stride * 2 * math.pi / 0.9)
    for light, sign in ((0.6, -1.0), (1.0, 1.0)):  # the far legs first, in the shade
        for hip, hind in ((-0.25, 1.0), (0.18, -1.0)):
            reach = 0.15 * sign * hind * swing
            raised = 0.05 * (sign * hind * lift).clamp(min=0)
            b(capsule, (hip, 0.36), (hip + reach, 0.05 + raised), 0.052, light=light)
    b(capsule, (-0.30, 0.46), (-0.46, 0.66 + 0.05 * swing), 0.04, light=0.85)
    b(capsule, (-0.23, 0.43), (0.17, 0.45), 0.135)
    b(capsule, (0.16, 0.46), (0.31, 0.62), 0.09)
    b(disc, (0.33, 0.65), 0.115)
    b(capsule, (0.36, 0.62), (0.455, 0.60), 0.055, light=0.92)
    b(disc, (0.485, 0.615), 0.026, colour=(0.05, 0.05, 0.05))
    b(capsule, (0.28, 0.72), (0.23, 0.58), 0.048, light=0.6)
    b(disc, (0.38, 0.68), 0.02, colour=(0.03, 0.03, 0.03))
