"""The shipped weights: what the model card claims, on few enough samples for a CPU."""

from __future__ import annotations

import pytest
import torch

from training.painter import render
from training.world import Scenes, random_captions
from vdit_core.demo import pairs, single_pass
from vdit_core.metrics import psnr
from vdit_core.tiny_wan.captions import UnknownWord
from vdit_core.tiny_wan.files import TEXT_ENCODER, WEIGHTS
from vdit_core.tiny_wan.text import LENGTH, WIDTH, PromptTooLong, TextEncoder


@pytest.fixture(scope="module")
def held_out():
    """Twelve clips of seeds that training never saw, their scenes and captions."""
    seeds = torch.arange(500, 512)
    captions = random_captions(seeds)
    scenes = Scenes.sample(seeds, captions)
    return render(scenes), scenes, captions


def test_the_vae_reconstructs_at_29_db(demo_model, held_out):
    video = held_out[0][:4]
    mean, _ = single_pass.encode(demo_model.pipe.vae, video * 2 - 1)
    output = (single_pass.decode(demo_model.pipe.vae, mean) + 1) / 2
    assert psnr(output.clamp(0, 1), video).mean() >= 29


def test_one_pass_equals_diffusers_chunks(demo_model, held_out):
    vae, video = demo_model.pipe.vae, held_out[0][:1] * 2 - 1
    posterior = vae.encode(video).latent_dist
    mean, log_variance = single_pass.encode(vae, video)
    torch.testing.assert_close(mean, posterior.mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_variance, posterior.logvar, rtol=1e-4, atol=1e-3)
    decoded = vae.decode(mean).sample
    torch.testing.assert_close(single_pass.decode(vae, mean).clamp(-1, 1), decoded, rtol=1e-4, atol=1e-4)


def test_latents_are_normalised_as_the_hosts_do_it(demo_model, held_out):
    vae = demo_model.pipe.vae
    mean, _ = single_pass.encode(vae, held_out[0] * 2 - 1)
    shift, scale = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    values = ((mean - shift) / scale).transpose(0, 1).flatten(1)
    assert values.mean(1).abs().max() < 0.3
    assert (values.std(1) - 1).abs().max() < 0.3


def test_the_probe_reads_held_out_clips(probe, held_out):
    video, scenes, _ = held_out
    reading, truth = probe(video), scenes.truth()
    for name, bound in (("x", 1), ("y", 1), ("width", 1), ("height", 1), ("horizon", 1), ("pan", 2)):
        assert (getattr(reading, name) - getattr(truth, name)).abs().mean() < bound
    for name in ("object", "colour", "place", "season"):
        assert torch.equal(getattr(reading, name).argmax(1), getattr(truth, name))
    with pytest.raises(ValueError, match=r"reads clips of shape .* not \(1, 3, 9, 128, 128\)"):
        probe(video[:1, :, :9])


def test_clips_show_what_their_prompts_say(demo_model, probe, held_out):
    captions = held_out[2][:8]
    reading = probe(demo_model.generate([str(c) for c in captions], range(len(captions)), steps=12))
    for name in ("object", "place", "season"):
        assert reading.names(name) == [getattr(c, name) for c in captions]
    named = [(c.colour, seen) for c, seen in zip(captions, reading.names("colour"), strict=True) if c.colour]
    assert all(colour == seen for colour, seen in named)


def test_objects_keep_their_size_and_do_not_jump(demo_model, probe):
    prompts = [
        "A car is driving on the highway",
        "A truck is driving on the grass",
        "A dog is running on the grass",
    ]
    reading = probe(demo_model.generate(prompts, range(40, 43), steps=12))
    for name, bound in (("x", 6), ("y", 4), ("width", 4), ("height", 4)):
        assert getattr(reading, name).diff(dim=1).abs().max() < bound, name


def test_the_headline(demo_model, probe):
    """With the source's maps a truck drives as the car drove: four seeds, all layers, 12 steps."""
    result = pairs.run(demo_model, probe, [pairs.PAIRS["truck"]], range(4), steps=12)[0]
    plain, transfer = result.scores["plain"], result.scores["transfer"]
    assert transfer["x"] <= 0.7 * plain["x"]
    assert transfer["pan"] <= 0.5 * plain["pan"]
    assert transfer["object"] >= 0.75
    assert result.report.replaced == result.report.expected == 9 * 12 * 2


def test_the_empty_prompt_is_no_caption():
    text = TextEncoder.load(WEIGHTS / TEXT_ENCODER)
    contexts = text.encode(["", "A car is driving on the grass"])
    assert contexts.shape == (2, LENGTH, WIDTH)
    assert contexts[0].abs().sum() == 0
    assert (contexts[1].abs().sum(1) > 0).tolist() == [True] * 7 + [False] * (LENGTH - 7)
    with pytest.raises(UnknownWord):
        text.encode(["blurry"])
    with pytest.raises(PromptTooLong, match="17 words; the demo model reads at most 16"):
        text.encode(["car " * 17])


def test_tables_for_other_words_are_refused(tmp_path):
    text = TextEncoder.load(WEIGHTS / TEXT_ENCODER)
    text.save(tmp_path / "same.safetensors")
    assert torch.equal(TextEncoder.load(tmp_path / "same.safetensors").word_vectors, text.word_vectors)
    with pytest.raises(ValueError, match="expected"):
        TextEncoder(text.word_vectors[1:], text.position_vectors)


def test_an_unknown_pair_is_refused():
    assert pairs.choose("all") == list(pairs.PAIRS.values())
    assert [p.name for p in pairs.choose("dog, red, dog")] == ["dog", "red"]
    with pytest.raises(ValueError, match="no pair 'blue'; the pairs are red, winter, truck, dog, or all"):
        pairs.choose("blue")
