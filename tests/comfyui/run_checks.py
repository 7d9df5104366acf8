"""Runs of every kind, recorded and transferred: right, or refused with the reason before anything is computed.
Started by test_host.py."""

from __future__ import annotations

from typing import Any

import inside
from aftermath import nothing_stays
from inside import NOTHING, SMALL, SOURCE, TARGET, cases, host, raised_by, sample, tiny
from variants import (
    MODEL,
    PICTURE,
    Seen,
    first_last_frame,
    given,
    hooked,
    image_to_video,
    masked,
    node,
    random,
    wan22_5b,
    wan22_i2v,
    windowed,
    with_lora,
    with_references,
)

# isort: split
import torch
from pack.vdit_core.call import Interceptor
from pack.vdit_core.outcome import Level
from pack.vdit_core.recording.recorder import Recorder
from pack.vdit_core.recording.store import Key
from pack.vdit_core.transfer import Transfer

BIG = (48, 2, 4, 4)


def scheduled(start: float, end: float, prompt: list = SOURCE) -> list:
    return [[prompt[0][0], {"start_percent": start, "end_percent": end}]]


def both(**inputs: Any) -> dict[str, Any]:
    """Texts for `tiny`, positive and negative, with the same further inputs."""
    return {"positive": given(**inputs), "negative": given(**inputs)}


#: A run, as `sample` takes it; `make` makes its model, the demo model if there is none.
ITSELF = {
    # samplers: two evaluations a step, three, noise in every step, ones that keep earlier steps
    "dpm_2": {"sampler": "dpm_2"},
    "dpm_2_ancestral": {"sampler": "dpm_2_ancestral"},
    "heunpp2": {"sampler": "heunpp2"},
    "exp_heun_2_x0_sde": {"sampler": "exp_heun_2_x0_sde"},
    "dpmpp_2s_ancestral": {"sampler": "dpmpp_2s_ancestral"},
    "dpmpp_2s_ancestral_cfg_pp": {"sampler": "dpmpp_2s_ancestral_cfg_pp"},
    "dpmpp_sde": {"sampler": "dpmpp_sde"},
    "dpmpp_3m_sde": {"sampler": "dpmpp_3m_sde"},
    "seeds_3": {"sampler": "seeds_3"},
    "sa_solver_pece": {"sampler": "sa_solver_pece"},
    "euler_ancestral_cfg_pp": {"sampler": "euler_ancestral_cfg_pp"},
    "er_sde": {"sampler": "er_sde"},
    "lcm": {"sampler": "lcm"},
    "gradient_estimation": {"sampler": "gradient_estimation"},
    # schedulers, as far as no other test has them
    "sgm_uniform": {"scheduler": "sgm_uniform"},
    "exponential": {"scheduler": "exponential"},
    "ddim_uniform": {"scheduler": "ddim_uniform"},
    "linear_quadratic": {"scheduler": "linear_quadratic"},
    "kl_optimal": {"scheduler": "kl_optimal"},
    # parts of a schedule, pictures to begin with
    "one step": {"steps": 1},
    "img2img, denoise 0.4": {"denoise": 0.4, "latent": PICTURE},
    "img2img, denoise 0.05, dpm_2": {"denoise": 0.05, "latent": PICTURE, "sampler": "dpm_2"},
    "inpainting": {"latent": PICTURE, "noise_mask": torch.ones(1, 1, 8, 8).triu()},
    "start_step 1, end_step 3 of 4": {"steps": 4, "start_step": 1, "last_step": 3, "latent": PICTURE},
    "end_step 2 of 4, denoised to the end": {"steps": 4, "last_step": 2, "force_full_denoise": True},
    "the noise levels backwards": {"sigmas": torch.tensor([0.3, 0.6, 0.9]), "latent": PICTURE},
    "a level twice": {"sigmas": torch.tensor([1.0, 0.8, 0.8, 0.4, 0.0])},
    # guidance and prompts
    "cfg 1": {"cfg": 1.0},
    "cfg 1, two positives": {"cfg": 1.0, "positive": [*SOURCE, *TARGET]},
    "two positives, two negatives": {"positive": [*SOURCE, *TARGET], "negative": [*NOTHING, *TARGET]},
    "one prompt, both positive and negative": {"negative": SOURCE},
    "prompts that take turns": {"positive": [*scheduled(0, 0.5), *scheduled(0.5, 1, TARGET)], "steps": 4},
    "prompts that overlap": {"positive": [*scheduled(0, 0.8), *scheduled(0.3, 1, TARGET)], "steps": 4},
    "prompts for halves of the picture": {"positive": [*masked(left=True), *masked(left=False)]},
    "a prompt with its own LoRA": {"positive": hooked()},
    "a batch of three": {"videos": 3},
    "a batch of two, two positives, cfg 1": {"videos": 2, "cfg": 1.0, "positive": [*SOURCE, *TARGET]},
    # sizes
    "one frame": {"size": (16, 1, 8, 8)},
    "one token": {"size": (16, 1, 2, 2)},
    "odd sizes, padded": {"size": (16, 2, 7, 5)},
    # what stock nodes do to guidance
    "SkipLayerGuidanceDiT": {"make": lambda: node("nodes_slg", "SkipLayerGuidanceDiT", 3.0, 0.0, 1.0, "1, 2")},
    "SkipLayerGuidanceDiT of the first layer": {
        "make": lambda: node("nodes_slg", "SkipLayerGuidanceDiT", 3.0, 0.0, 1.0, "0")
    },
    "APG": {"make": lambda: node("nodes_apg", "APG", 1.0, 5.0, 0.5)},
    "TCFG": {"make": lambda: node("nodes_tcfg", "TCFG")},
    "CFGZeroStar": {"make": lambda: node("nodes_cfg", "CFGZeroStar")},
    "CFGNorm": {"make": lambda: node("nodes_cfg", "CFGNorm", 1.0)},
    "RescaleCFG": {"make": lambda: node("nodes_model_advanced", "RescaleCFG", 0.7)},
    "Mahiro": {"make": lambda: node("nodes_mahiro", "Mahiro")},
    "FreSca": {"make": lambda: node("nodes_fresca", "FreSca", 1.0, 1.25, 20)},
    "ScaleROPE": {"make": lambda: node("nodes_rope", "ScaleROPE", 1.0, 0.0, 2.0, 1.0, 1.0, 0.0)},
    "Epsilon Scaling": {"make": lambda: node("nodes_eps", "EpsilonScaling", 1.05)},
    "DifferentialDiffusion": {
        "make": lambda: node("nodes_differential_diffusion", "DifferentialDiffusion"),
        "latent": PICTURE, "noise_mask": torch.linspace(0, 1, 64).view(1, 1, 8, 8),
    },
    "a LoRA": {"make": with_lora},
    # Wan's other models
    "I2V, a picture": {"make": image_to_video, **both(concat_latent_image=PICTURE, clip_vision_output=Seen())},
    "first and last frame": {
        "make": first_last_frame, **both(concat_latent_image=PICTURE, clip_vision_output=Seen(2))
    },
    "Wan2.2 I2V, a picture": {"make": wan22_i2v, **both(concat_latent_image=PICTURE)},
    "Wan2.2 5B": {"make": wan22_5b, "size": BIG, **both()},
    "Wan2.2 5B from a picture": {
        "make": wan22_5b, "size": BIG, "latent": random(1, *BIG), "noise_mask": torch.ones(1, 1, 2, 4, 4).tril(),
        **both(),
    },
    "a reference picture": {"make": with_references, **both(reference_latents=[random(1, 16, 1, 8, 8)])},
    "pictures of a subject (Phantom)": {"make": tiny, **both(time_dim_concat=random(1, 16, 1, 8, 8))},
    "other videos behind the grid (Bernini)": {"make": tiny, **both(context_latents=[random(1, 16, 1, 8, 8)])},
}  # fmt: skip


def models_and_options(run: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    options = {"size": SMALL, "steps": 2} | run
    make = options.pop("make", None)
    return (MODEL if make is None else make()), options


class Expected(Interceptor):
    """Behind a transfer: counts the calls that have the recording's queries and keys, to the bit, and the others."""

    def __init__(self, store) -> None:
        self.store, self.right, self.own = store, 0, 0

    def __call__(self, call, proceed):
        found = self.store.find(call.site.sigma, call.site.visit)
        for i, row in enumerate(call.site.rows):
            key = Key(found, row.branch, call.site.layer)
            if key in self.store:
                recorded = self.store.get(key, call.q.device, call.q.dtype)
                pairs = zip((call.q[i], call.k[i]), recorded, strict=True)
                same = [torch.equal(put, its[row.sample if len(its) > 1 else 0]) for put, its in pairs]
                self.right += all(same)
                self.own += not all(same)
            else:
                self.own += 1
        return proceed(call)


@cases(ITSELF)
def check_transferred_into_itself(run):
    """Recording changes no bit; every call is replaced by what it was, so the video stays the same."""
    model, options = models_and_options(run)
    stock = sample(model, **options)
    recorder = Recorder()
    assert torch.equal(sample(host.attach(model, recorder), **options), stock)
    transfer, expected = Transfer(recorder.store), Expected(recorder.store)
    again = sample(host.attach(host.attach(model, transfer), expected), **options)
    torch.testing.assert_close(again, stock, rtol=0, atol=1e-4 * float(stock.abs().max()))
    report = transfer.report
    assert report.replaced == report.expected > 0, report
    assert report.missed == 0, report
    assert expected.right > 0, "nothing was put in"
    assert expected.own == 0, f"{expected.own} rows have their own maps"


FOUR, TWO = {"steps": 4}, {"steps": 2}
EULER, HEUN, SDE, TWICE = ({"sampler": name} for name in ("euler", "heun", "dpmpp_sde", "dpmpp_2s_ancestral"))
DIFFER = "has no counterpart in the recorded run: the settings differ."
FIRST, LAST = {"steps": 4, "last_step": 2}, {"steps": 4, "start_step": 2}
CFG_1, CFG_5 = {"cfg": 1.0}, {"cfg": 5.0}
EASY = {"steps": 8, "make": lambda: node("nodes_easycache", "EasyCacheNode", 5.0, 0.15, 0.95, False)}
SKIPPED = {"make": lambda: node("nodes_slg", "SkipLayerGuidanceDiTSimple", 0.0, 1.0, "1, 2")}
WINDOWS = {"size": (16, 4, 8, 8), "make": windowed}
TWO_POSITIVES = {"positive": [*SOURCE, *TARGET]}

#: How the source was sampled, how the target is, and what the error says.
REFUSED = {
    "another scheduler": ({"scheduler": "simple"}, {"scheduler": "karras"}, DIFFER),
    "more steps": (TWO, FOUR, "Source: 2 steps, shift 3, cfg 5, 64×64×5. Target: 4 steps."),
    "steps that do not divide": ({"steps": 3}, FOUR, "Source: 3 steps, shift 3, cfg 5, 64×64×5. Target: 4 steps."),
    "a sampler that leaves the last level but one out": (EULER, {"sampler": "dpm_2"}, "Target: sampler dpm_2"),
    "the whole schedule of a part's": (
        {"denoise": 0.5, "latent": PICTURE}, {}, "noise from 0.75. Target: noise from 1.00.",
    ),
    "a part of another schedule": (
        {}, {"denoise": 0.5, "latent": PICTURE}, "noise from 1.00. Target: noise from 0.75.",
    ),
    "the other half of the steps": (FIRST, LAST, "noise from 1.00. Target: noise from 0.75. They are different parts"),
    "the other half, the other way": (LAST, FIRST, "noise from 0.75. Target: noise from 1.00. They are different"),
    "two videos for three": ({"videos": 2}, {"videos": 3}, "The store holds 2 samples, this run has 3"),
    "two videos for one": ({"videos": 2}, {}, "The store holds 2 samples, this run has 1: record one sample"),
    "a longer video": ({}, {"size": (16, 3, 8, 8)}, "64×64×5. Target: 64×64×9. Use the source's width, height and len"),
    "a turned video": ({"size": (16, 2, 8, 6)}, {"size": (16, 2, 6, 8)}, "48×64×5. Target: 64×48×5."),
    "a window for the whole": (WINDOWS, {"size": (16, 4, 8, 8)}, "13, 2 x 4 x 4 tokens. Target: 4 x 4 x 4 tokens."),
    "more layers": ({"make": tiny, **both()}, {}, "from a model of 2 layers x 1 heads x 128; this one has 4 layers"),
    "I2V into T2V": (
        {"make": wan22_i2v, **both()}, {"make": tiny, **both()}, "of kind wan t2v 36 -> 16; this one is wan t2v 16",
    ),
    "Wan2.1 I2V into Wan2.2 I2V": (
        {"make": image_to_video, **both()}, {"make": wan22_i2v, **both()}, "of kind wan i2v 36 -> 16; this one is wan",
    ),
    "14B into 5B": (
        {"make": tiny, **both()}, {"make": wan22_5b, "size": BIG, **both()}, "wan t2v 16 -> 16; this one is wan t2v 48",
    ),
    "a reference that was not there": (
        {"make": with_references, **both()},
        {"make": with_references, **both(reference_latents=[random(1, 16, 1, 8, 8)])},
        "Target: 64×64×5 + 16 tokens of a reference. Give source and target the same reference pictures.",
    ),
}  # fmt: skip


def recorded(source: dict[str, Any]) -> Recorder:
    model, options = models_and_options(source)
    recorder = Recorder()
    sample(host.attach(model, recorder), **options)
    return recorder


class NoCall(Interceptor):
    """Behind a transfer that must be refused before anything is computed."""

    def __call__(self, call, proceed):
        raise AssertionError("attention was computed")


@cases(REFUSED)
def check_refused(source, target, message):
    transfer = Transfer(recorded(source).store)
    model, options = models_and_options(target)
    error = raised_by(sample, host.attach(host.attach(model, transfer), NoCall()), **options)
    assert isinstance(error, ValueError), repr(error)
    assert message in str(error), error


INSIDE = ", inside steps, had no recording"

#: How the source was sampled, how the target is, and what the transfer did.
SERVED = {
    "half the steps of the same schedule": (FOUR, TWO, "replaced 16 of 16 calls"),
    "the first half of a whole": (FOUR, FIRST, "replaced 16 of 16 calls"),
    "the second half of a whole": (FOUR, LAST | {"latent": PICTURE}, "replaced 16 of 16 calls"),
    "heun into euler": (HEUN, EULER, "replaced 16 of 16 calls"),
    "euler into heun": (EULER, HEUN, "replaced 16 of 16 calls"),
    "dpmpp_2s_ancestral into euler": (TWICE, EULER, "replaced 16 of 16 calls"),
    "euler into dpmpp_2s_ancestral": (EULER | FOUR, TWICE | FOUR, f"replaced 32 of 32 calls; 8 more{INSIDE}"),
    "euler into dpmpp_sde": (EULER, SDE, f"replaced 16 of 16 calls; 4 more{INSIDE}"),
    "ancestral into euler": ({"sampler": "euler_ancestral"}, EULER, "replaced 16 of 16 calls"),
    "guidance into none": (CFG_5, CFG_1, "replaced 8 of 8 calls"),
    "another guidance": (CFG_5, {"cfg": 9.0}, "replaced 16 of 16 calls"),
    "the first of two prompts": (TWO_POSITIVES, {}, "replaced 16 of 16 calls"),
    "a prompt for some steps": (FOUR, FOUR | {"positive": scheduled(0.5, 1)}, "replaced 24 of 24 calls"),
    "one video for three": ({}, {"videos": 3}, "replaced 16 of 16 calls"),
    "three videos, row by row": ({"videos": 3}, {"videos": 3, "positive": TARGET}, "replaced 16 of 16 calls"),
    "a window for a video of its size": (WINDOWS, {"size": (16, 2, 8, 8)}, "replaced 16 of 16 calls"),
    "skipped layers' second passes": (
        {"make": ITSELF["SkipLayerGuidanceDiT"]["make"]}, {"positive": TARGET}, "replaced 16 of 16 calls",
    ),
    "all for a cache that leaves steps out": ({"steps": 8}, EASY, "replaced 32 of 64 calls"),
    "layers that are left out again": (SKIPPED, SKIPPED, "replaced 12 of 12 calls"),
}  # fmt: skip


@cases(SERVED)
def check_served(source, target, report):
    """A target of other settings gets exactly the maps that were recorded at its noise levels."""
    recorder = recorded(source)
    model, options = models_and_options(target)
    transfer, expected = Transfer(recorder.store), Expected(recorder.store)
    sample(host.attach(host.attach(model, transfer), expected), **options)
    assert str(transfer.report) == report, transfer.report
    assert expected.right >= transfer.report.replaced, expected.right
    assert expected.own == transfer.report.missed * 2, (expected.own, transfer.report)


#: How the source was sampled, how the target is, what the transfer did, and why not more.
SERVED_PARTLY = {
    "guidance that was not recorded": (
        CFG_1, CFG_5, "replaced 8 of 16 calls", "the negative prompt was not recorded (source: cfg 1, target: cfg 5)",
    ),
    "a second positive prompt": (
        {}, TWO_POSITIVES, "replaced 16 of 24 calls", "the prompt 'cond 2' was not recorded",
    ),
    "a prompt that came later": (
        {"steps": 4, "positive": scheduled(0.5, 1)}, FOUR, "replaced 24 of 32 calls",
        "the source's run did not compute the positive prompt in steps 0-1",
    ),
    "a cache that left steps out": (EASY, {"steps": 8}, "replaced 32 of 64 calls", "were not recorded"),
    "layers that were left out": (
        SKIPPED, {}, "replaced 12 of 16 calls", "the source's run did not compute the negative prompt in steps 0-1",
    ),
}  # fmt: skip


@cases(SERVED_PARTLY)
def check_served_partly(source, target, report, cause):
    """Calls without a recorded twin have their own maps, are counted, and the cause is told."""
    recorder = recorded(source)
    model, options = models_and_options(target)
    transfer, expected = Transfer(recorder.store), Expected(recorder.store)
    sample(host.attach(host.attach(model, transfer), expected), **options)
    done = transfer.report
    assert str(done) == report, done
    assert expected.right == done.replaced, (expected.right, done)
    assert expected.own == done.expected - done.replaced, (expected.own, done)
    verdict = done.verdict()
    assert verdict.level == Level.PARTLY, verdict
    assert cause in verdict.text, verdict


#: Which recording each of the two experts gets, of the expert for high noise and of the one for low; what is said.
EXPERTS = {
    "each its own": ((0, 1), None),
    "each the other's": ((1, 0), "noise from 0.75. Target: noise from 1.00. They are different parts"),
    "both that of high noise": ((0, 0), "noise from 1.00. Target: noise from 0.75. They are different parts"),
    "both that of low noise": ((1, 1), "noise from 0.75. Target: noise from 1.00. They are different parts"),
}


@cases(EXPERTS)
def check_two_experts(which, message):
    """Wan2.2 14B as its templates have it: two models, two samplers, the noise of the first kept for the second."""
    experts = MODEL, with_lora()

    def both(high, low):
        first = sample(high, size=SMALL, **FIRST)
        return first, sample(low, size=SMALL, **LAST, latent=first, noise=torch.zeros_like(first))

    recorders = Recorder(), Recorder()
    stock = both(*experts)
    assert all(map(torch.equal, both(*map(host.attach, experts, recorders)), stock))
    transfers = [Transfer(recorders[n].store) for n in which]
    models = list(map(host.attach, experts, transfers))
    if message is not None:
        assert message in str(raised_by(both, *models))
        return
    for again, its in zip(both(*models), stock, strict=True):
        torch.testing.assert_close(again, its, rtol=0, atol=1e-4)
    assert [str(t.report) for t in transfers] == ["replaced 16 of 16 calls"] * 2


inside.report(globals(), nothing_stays)
