from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.painter import render
from training.world import Scenes, random_captions, uniform
from vdit_core.tiny_wan.captions import (
    COLOURS,
    OBJECTS,
    PLACES,
    SEASONS,
    VOCABULARY,
    Caption,
    NotACaption,
    UnknownWord,
    words,
)
from vdit_core.tiny_wan.files import FRAMES, SIZE

CAPTIONS = st.builds(
    Caption,
    object=st.sampled_from(OBJECTS),
    place=st.sampled_from(PLACES),
    colour=st.none() | st.sampled_from(COLOURS),
    season=st.sampled_from(SEASONS),
)


@given(CAPTIONS)
def test_a_caption_survives_its_sentence(caption):
    assert Caption.parse(str(caption)) == caption
    assert Caption.parse(f"  {str(caption).upper()}! ") == caption


def test_the_papers_prompts_are_sentences():
    for prompt in (
        "A car is driving on the highway",
        "A red car is driving on the highway",
        "A car is driving on the highway in the winter",
        "A truck is driving on the highway",
        "A dog is running on the grass",
    ):
        assert str(Caption.parse(prompt)) == prompt


def test_an_unknown_word_is_named_with_the_known_ones():
    with pytest.raises(UnknownWord, match=r"does not know the word 'purple'.*a, is, driving.*winter"):
        words("A purple car")
    with pytest.raises(NotACaption, match=r"not a sentence.*Its form is"):
        Caption.parse("car red a")
    with pytest.raises(ValueError, match="'boat' is not one of car, truck, dog"):
        Caption("boat")
    assert len(set(VOCABULARY)) == len(VOCABULARY)


@given(st.integers(0, 2**62), st.text(max_size=8))
def test_random_numbers_depend_on_seed_and_name_alone(seed, name):
    alone = uniform(torch.tensor([seed]), name, count=3)
    crowd = uniform(torch.tensor([1, seed, 2]), name, count=3)
    assert torch.equal(alone[0], crowd[1])
    assert ((alone >= 0) & (alone < 1)).all()


def test_random_numbers_are_uniform_and_independent():
    seeds = torch.arange(20_000)
    a, b = uniform(seeds, "a"), uniform(seeds, "b")
    for x in (a, b, uniform(torch.zeros(1, dtype=torch.int64), "c", count=20_000)[0]):
        assert (torch.histc(x, 10, 0, 1) / 2000 - 1).abs().max() < 0.1
        assert torch.corrcoef(torch.stack([x[:-1], x[1:]]))[0, 1].abs() < 0.03
    assert torch.corrcoef(torch.stack([a, b]))[0, 1].abs() < 0.03


def test_a_clip_does_not_depend_on_its_batch():
    seeds = torch.arange(5)
    captions = random_captions(seeds)
    batch = render(Scenes.sample(seeds, captions))
    assert batch.shape == (5, 3, FRAMES, SIZE, SIZE)
    assert batch.min() >= 0
    assert batch.max() <= 1
    for i in (0, 3):
        torch.testing.assert_close(render(Scenes.sample([i], [captions[i]]))[0], batch[i], rtol=0, atol=1e-6)


def test_captions_with_one_seed_share_the_cinematography():
    captions = [Caption("car"), Caption("car", colour="red"), Caption("car", season="winter"), Caption("truck")]
    truth = Scenes.sample([11] * 4, captions).truth()
    for name in ("x", "horizon", "pan"):
        values = getattr(truth, name)
        assert torch.equal(values, values[:1].expand_as(values))


@pytest.mark.parametrize("kind", OBJECTS)
def test_the_truth_is_where_the_pixels_are(kind):
    """The pixels in which two clips that differ in the object's colour differ are inside its box, and fill it."""
    seeds = list(range(6))
    scenes = [Scenes.sample(seeds, [Caption(kind, colour=colour)] * 6) for colour in ("red", "yellow")]
    a, b = (render(s) for s in scenes)
    truth = scenes[0].truth()
    changed = (a - b).abs().amax(1) > 0.2
    for clip in range(6):
        for frame in (0, FRAMES // 2, FRAMES - 1):
            ys, xs = (v + 0.5 for v in changed[clip, frame].nonzero().T)
            x, y, w, h = (float(getattr(truth, n)[clip, frame]) for n in ("x", "y", "width", "height"))
            left, right = max(x - w / 2, 0), min(x + w / 2, SIZE)
            assert xs.min() == pytest.approx(left, abs=1 + 0.06 * w)
            assert xs.max() == pytest.approx(right, abs=1 + 0.06 * w)
            assert ys.min() == pytest.approx(y - h / 2, abs=1 + 0.08 * h)
            assert ys.max() <= y + h / 2 + 1


def test_the_truth_of_the_camera_is_where_the_pixels_are():
    """In a clip without zoom the ground beside the object moves by the pan from one frame to the next."""
    seeds = torch.arange(400)
    still = seeds[uniform(seeds, "zoom").sub(0.5).abs() < 0.01]
    assert len(still) >= 4
    scenes = Scenes.sample(still, [Caption("car")] * len(still))
    video, truth = render(scenes).mean(1), scenes.truth()
    for clip in range(len(still)):
        moved = float(truth.pan[clip, 8] - truth.pan[clip, 7])
        ground = slice(int(truth.horizon[clip, 7]) + 6, SIZE)
        before, after = video[clip, 7, ground], video[clip, 8, ground]
        beside = (torch.arange(SIZE) - truth.x[clip, 7]).abs() > truth.width[clip, 7] / 2 + 12
        errors = {}
        for shift in range(-8, 9):
            columns = [i for i in range(SIZE) if beside[i] and 0 <= i + shift < SIZE and beside[i + shift]]
            errors[shift] = float((before[:, [i + shift for i in columns]] - after[:, columns]).abs().mean())
        assert min(errors, key=errors.get) == pytest.approx(moved, abs=1.01)


def test_seeds_and_captions_must_match():
    with pytest.raises(ValueError, match="3 seeds for 1 captions"):
        Scenes.sample([1, 2, 3], [Caption("car")])


def test_scenes_can_be_sliced():
    scenes = Scenes.sample([1, 2, 3], [Caption("car"), Caption("dog"), Caption("truck")])
    part = scenes[1:]
    assert all(torch.equal(getattr(part, f.name), getattr(scenes, f.name)[1:]) for f in fields(scenes))
