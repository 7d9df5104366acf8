"""The synthetic world: from a seed and a caption to the layout of a clip and its ground truth.

A clip shows one object (car, truck or dog) crossing a landscape while the camera pans and zooms. What the caption
names is fixed; all else (place in the picture, size, speed, direction, horizon, pan, zoom, colour, trees, clouds) is
drawn from the seed alone, so two captions with one seed give the same cinematography. `painter.render` turns the
layout into pixels, `Scenes.truth` says where everything is, so that results are measured and not judged by eye.

Lengths are pixels of the 128 x 128 frame, y grows downwards, times are frames.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from vdit_core.demo.probe import Course
from vdit_core.tiny_wan.captions import COLOURS, OBJECTS, PLACES, SEASONS, Caption
from vdit_core.tiny_wan.files import FRAMES, SIZE

CENTRE = SIZE / 2

#: Height of an object over its width, and its width over the width drawn for the clip: car, truck, dog.
ASPECT = (0.44, 0.56, 0.78)
WIDTH_FACTOR = (1.0, 1.1, 0.9)

TREES = 9
CLOUDS = 4
TUFTS = 16


def _mix(x: Tensor) -> Tensor:
    """The splitmix64 finaliser on int64 (wrapping arithmetic, logical shifts): the same bits on every device."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def uniform(seeds: Tensor, name: str, low: float = 0.0, high: float = 1.0, count: int | None = None) -> Tensor:
    """Random numbers that depend on nothing but the seed and a name: no state, no order of calls.

    Args:
        seeds: int64, shape (clips,).
        name: which quantity is drawn; different names are independent.
        count: how many numbers per clip; ``None`` gives one.

    Returns:
        float32 in [low, high), shape (clips,) or (clips, count).
    """
    key = zlib.crc32(name.encode())
    index = torch.arange(count or 1, device=seeds.device)
    bits = _mix(_mix(seeds[:, None] * 0x100000001B3 + key) + index * 0x9E3779B1)
    fraction = ((bits >> 40) & 0xFFFFFF).float() / 2**24
    value = low + (high - low) * fraction
    return value if count else value[:, 0]


def random_captions(seeds: Tensor) -> list[Caption]:
    """One caption per seed: objects, places and seasons in equal shares, a colour named in half of them."""

    def pick(values: Sequence[str], name: str) -> list[str]:
        return [values[int(i)] for i in (uniform(seeds, name) * len(values)).tolist()]

    named = (uniform(seeds, "caption.named") < 0.5).tolist()
    columns = zip(
        pick(OBJECTS, "caption.object"),
        pick(PLACES, "caption.place"),
        pick(COLOURS, "caption.colour"),
        named,
        pick(SEASONS, "caption.season"),
        strict=True,
    )
    return [Caption(o, place, colour if n else None, season) for o, place, colour, n, season in columns]


@dataclass(frozen=True)
class Truth(Course):
    """What is in a clip, and where.

    object, colour, place, season: class indices into the tuples of `captions`, int64, shape (clips,).
    """

    object: Tensor
    colour: Tensor
    place: Tensor
    season: Tensor


@dataclass(frozen=True)
class Scenes:
    """The layouts of a batch of clips, as one tensor of shape (clips,) or (clips, n) per quantity.

    `object`, `colour`, `place`, `season` are class indices. `x`, `velocity`: the object's centre on screen at mid clip
    and its motion in px per frame. `speed`: its signed motion over the ground; the camera pans by the difference.
    `ground`: y of the wheels. `zoom`: relative change of scale from the first frame to the last.
    """

    seeds: Tensor
    object: Tensor
    colour: Tensor
    place: Tensor
    season: Tensor

    @classmethod
    def sample(cls, seeds: Sequence[int] | Tensor, captions: Sequence[Caption], device: str = "cpu") -> Scenes:
        """Lay out one clip per seed and caption."""
        seeds = torch.as_tensor(seeds, dtype=torch.int64, device=device)
        if len(seeds) != len(captions):
            raise ValueError(f"{len(seeds)} seeds for {len(captions)} captions: one each is needed.")

        def index(values: Sequence[str], field: str) -> Tensor:
            return torch.tensor([values.index(getattr(c, field)) for c in captions], device=device)

        kind = index(OBJECTS, "object")
        named = torch.tensor([COLOURS.index(c.colour) if c.colour else -1 for c in captions], device=device)
        drawn = (uniform(seeds, "colour") * (len(COLOURS) - 1)).long()  # brown, the last, is for dogs
        natural = torch.tensor([COLOURS.index(c) for c in ("brown", "brown", "black", "white")], device=device)
        dog = natural[(uniform(seeds, "colour") * len(natural)).long()]
        drawn = torch.where(kind == OBJECTS.index("dog"), dog, drawn)
        return cls(seeds, kind, torch.where(named >= 0, named, drawn), index(PLACES, "place"), index(SEASONS, "season"))

    def __getitem__(self, clips: slice | Tensor) -> Scenes:
        return Scenes(*(getattr(self, f.name)[clips] for f in fields(self)))

    @property
    def device(self) -> torch.device:
        return self.seeds.device

    def draw(self, name: str, low: float, high: float, count: int | None = None) -> Tensor:
        """A random quantity of each clip; see `uniform`."""
        return uniform(self.seeds, name, low, high, count)

    @property
    def facing(self) -> Tensor:
        """+1 to the right, -1 to the left."""
        return torch.where(self.draw("facing", 0, 1) < 0.5, -1.0, 1.0)

    @property
    def width(self) -> Tensor:
        """The object's width at zoom 1."""
        factor = torch.tensor(WIDTH_FACTOR, device=self.device)[self.object]
        return self.draw("width", 46, 66) * factor

    @property
    def ground(self) -> Tensor:
        """Y of the object's wheels or feet at zoom 1."""
        return self.draw("ground", 88, 110)

    @property
    def horizon(self) -> Tensor:
        """Y of the horizon at zoom 1."""
        return self.draw("horizon", 34, 62)

    @property
    def speed(self) -> Tensor:
        """The object's signed speed over the ground, px per frame."""
        return self.facing * self.draw("speed", 0.8, 3.5)

    @property
    def velocity(self) -> Tensor:
        """The object's speed on the screen, px per frame."""
        return self.draw("velocity", -2.0, 2.0)

    def time(self) -> Tensor:
        """Frames from mid clip, shape (1, frames)."""
        return (torch.arange(FRAMES, device=self.device) - (FRAMES - 1) / 2)[None]

    def zoom(self) -> Tensor:
        """Scale of each frame about the picture's centre, shape (clips, frames)."""
        return torch.exp(self.draw("zoom", -0.22, 0.22)[:, None] * self.time() / (FRAMES - 1))

    def camera(self) -> Tensor:
        """The camera's position over the ground in px at zoom 1, zero in frame 0, shape (clips, frames)."""
        return (self.speed - self.velocity)[:, None] * (self.time() + (FRAMES - 1) / 2)

    def path(self) -> Tensor:
        """X of the object's centre at zoom 1, shape (clips, frames)."""
        return self.draw("x", 50, 78)[:, None] + self.velocity[:, None] * self.time()

    def truth(self) -> Truth:
        """The ground truth of every clip; see `Truth`."""
        zoom = self.zoom()
        width = self.width[:, None] * zoom
        height = width * torch.tensor(ASPECT, device=self.device)[self.object][:, None]
        foot = (self.ground[:, None] - CENTRE) * zoom + CENTRE
        return Truth(
            x=(self.path() - CENTRE) * zoom + CENTRE,
            y=foot - height / 2,
            width=width,
            height=height,
            horizon=(self.horizon[:, None] - CENTRE) * zoom + CENTRE,
            pan=self.camera(),
            object=self.object,
            colour=self.colour,
            place=self.place,
            season=self.season,
        )
