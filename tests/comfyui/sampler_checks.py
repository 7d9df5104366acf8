"""The host adapter with ComfyUI's own samplers, guiders and schedules: noise, evaluations, which prompts come when.
Started by test_host.py."""

from __future__ import annotations

from itertools import pairwise

import inside
from inside import MODEL, NOTHING, SMALL, SOURCE, STEPS, TARGET, both_prompts, host, raised_by, sample, shallow, watched

# isort: split
import comfy.sample
import comfy.samplers
import torch
from pack.vdit_core.recording.recorder import Recorder
from pack.vdit_core.selection import Indices, LayerMask, Selection
from pack.vdit_core.transfer import LiveTransfer, Transfer, TransferConfig

#: For checks that go through all samplers: noise and evaluations do not depend on the number of layers.
SHALLOW = shallow(3)


def scheduled(start=0.0, end=1.0, prompt=SOURCE):
    return [[prompt[0][0], {"start_percent": start, "end_percent": end}]]


def check_scheduled_prompts():
    """Prompts that come in some steps only are recorded and transferred in those."""
    for options in (
        {"positive": [*scheduled(end=0.5), *scheduled(start=0.5, prompt=TARGET)]},
        {"negative": scheduled(end=0.5, prompt=NOTHING)},
    ):
        options |= {"steps": 8, "size": SMALL}
        recorder = Recorder(Selection(layers=Indices("0-2")))
        source = sample(host.attach(MODEL, recorder), **options)
        transfer = Transfer(recorder.store, TransferConfig(LayerMask("0-2")))
        again = sample(host.attach(MODEL, transfer), **options)
        torch.testing.assert_close(again, source, rtol=0, atol=1e-4)
        assert transfer.report.replaced == transfer.report.expected == len(recorder.store), transfer.report
        assert 3 * 8 < len(recorder.store) < 3 * 8 * len(recorder.store.branches), len(recorder.store)


def check_guiders_that_leave_prompts_out():
    """At settings where a prompt would not count ComfyUI does not compute it: it is not waited for."""
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG
    from comfy_extras.nodes_perpneg import Guider_PerpNeg

    def dual(model, cfg1, cfg2):
        guider = Guider_DualCFG(model)
        guider.set_conds(TARGET, SOURCE, NOTHING)
        guider.set_cfg(cfg1, cfg2)
        return guider

    def perpendicular(model, cfg, scale):
        guider = Guider_PerpNeg(model)
        guider.set_conds(TARGET, SOURCE, NOTHING)
        guider.set_cfg(cfg, scale)
        return guider

    def run(guider):
        noise = torch.randn((1, *SMALL), generator=torch.Generator().manual_seed(7))
        levels = comfy.samplers.calculate_sigmas(MODEL.get_model_object("model_sampling"), "simple", STEPS)
        return guider.sample(noise, torch.zeros_like(noise), comfy.samplers.ksampler("euler"), levels, seed=7)

    for make, settings, branches in (
        (dual, (3.0, 2.0), 3), (dual, (3.0, 1.0), 2), (dual, (1.0, 1.0), 1),
        (perpendicular, (3.0, 1.0), 3), (perpendicular, (3.0, 0.0), 2), (perpendicular, (1.0, 0.0), 1),
    ):  # fmt: skip
        recorder = Recorder(Selection(layers=Indices("0")))
        source = run(make(host.attach(MODEL, recorder), *settings))
        assert len(recorder.store.branches) == branches, (make.__name__, settings, recorder.store.branches)
        transfer = Transfer(recorder.store, TransferConfig(LayerMask("0")))
        torch.testing.assert_close(run(make(host.attach(MODEL, transfer), *settings)), source, rtol=0, atol=1e-4)
        assert transfer.report.replaced == transfer.report.expected == branches * STEPS, transfer.report


def check_no_sampler_evaluates_more_often_than_estimated():
    """What a recording will weigh is known beforehand, but for samplers that follow no steps."""
    for name in comfy.samplers.SAMPLER_NAMES:
        watch, _, _ = watched(SHALLOW, sampler=name, cfg=1.0, steps=4, size=SMALL)
        if name in ("dpm_fast", "dpm_adaptive"):
            continue
        seen = [site.step for site in watch.calls if site.layer == 0]
        most = max(seen.count(step) for step in seen)
        assert most == watch.runs[0].evaluations, f"{name}: {most} a step, not {watch.runs[0].evaluations}"


def check_live_transfer_gives_all_rows_one_noise_in_every_step():
    """Whatever a sampler adds: the source is its own stock video, and a target what a stored transfer makes of it."""
    for name in set(comfy.samplers.SAMPLER_NAMES) - {"dpm_adaptive"}:  # its steps hang on the batch as a whole

        def run(interceptor, prompt, sampler=name, **more):
            outcomes = []
            got = sample(
                host.attach(SHALLOW, interceptor, outcomes.append), prompt, sampler=sampler, size=SMALL, **more
            )
            assert outcomes[0].caveat is None, (sampler, outcomes[0].caveat)
            return got

        recorder = Recorder()
        source = run(recorder, SOURCE)
        live = run(LiveTransfer(), both_prompts(), videos=2)
        near = {"rtol": 0, "atol": 3e-3 * float(source.abs().max()), "msg": lambda text, name=name: f"{name}: {text}"}
        torch.testing.assert_close(live[:1], source, **near)
        if name != "dpm_fast":  # it cannot be recorded by steps
            transfer = Transfer(recorder.store)
            torch.testing.assert_close(live[1:], run(transfer, TARGET), **near)
            assert transfer.report.missed == 0, (name, transfer.report)


def check_noise_that_cannot_be_made_one_is_told():
    def caveat(sampler):
        outcomes = []
        model = host.attach(MODEL, LiveTransfer(), outcomes.append)
        noise = torch.randn((1, *SMALL)).repeat(2, 1, 1, 1, 1)
        levels = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", STEPS)
        comfy.sample.sample_custom(
            model, noise, 5.0, sampler, levels, both_prompts(), NOTHING, torch.zeros_like(noise), disable_pbar=True
        )
        return outcomes[0].caveat

    def foreign(model, x, sigmas, extra_args=None, callback=None, disable=None):
        for sigma, after in pairwise(sigmas):
            x = model(x, sigma * x.new_ones(len(x)), **extra_args) + after * torch.randn_like(x)
        return x

    assert "draws its own noise" in caveat(comfy.samplers.KSAMPLER(foreign))
    assert "draws its own noise" in caveat(comfy.samplers.ksampler("euler", {"s_churn": 0.5}))
    given = comfy.samplers.ksampler("euler_ancestral", {"noise_sampler": lambda a, b: 0.0})
    assert "another node gives this sampler its noise" in caveat(given)
    assert caveat(comfy.samplers.ksampler("euler")) is None


def check_a_sampler_is_not_changed_by_a_live_transfer():
    """Its copy adds the one noise; the sampler that other runs share does not."""
    sampler = comfy.samplers.ksampler("euler_ancestral")
    function, options = sampler.sampler_function, dict(sampler.extra_options)
    noise = torch.randn((1, *SMALL)).repeat(2, 1, 1, 1, 1)
    levels = comfy.samplers.calculate_sigmas(MODEL.get_model_object("model_sampling"), "simple", STEPS)

    def run(model):
        return comfy.sample.sample_custom(
            model,
            noise,
            5.0,
            sampler,
            levels,
            both_prompts(),
            NOTHING,
            torch.zeros_like(noise),
            disable_pbar=True,
            seed=3,
        )

    before = run(MODEL)
    run(host.attach(MODEL, LiveTransfer()))
    assert sampler.sampler_function is function
    assert sampler.extra_options == options
    assert torch.equal(run(MODEL), before)


def check_other_noise_in_a_live_batch_is_refused():
    noise = torch.randn((2, *SMALL))
    error = raised_by(
        comfy.sample.sample, host.attach(MODEL, LiveTransfer()), noise, STEPS, 5.0, "euler", "simple", both_prompts(),
        NOTHING, torch.zeros_like(noise), disable_pbar=True,
    )  # fmt: skip
    assert "start from other noise than the source" in str(error), error


def check_two_experts():
    """Wan2.2 14B: two models of one class, each sampling a part of the steps, each recorded on its own."""
    levels = comfy.samplers.calculate_sigmas(MODEL.get_model_object("model_sampling"), "simple", 4)

    def both(first, second):
        half = sample(first, sigmas=levels[:3])
        return sample(second, sigmas=levels[2:], positive=TARGET), half

    recorders = Recorder(), Recorder()
    stock = both(MODEL, MODEL)
    recorded = both(*(host.attach(MODEL, r) for r in recorders))
    assert all(map(torch.equal, stock, recorded))
    transfers = [Transfer(r.store) for r in recorders]
    again = both(*(host.attach(MODEL, t) for t in transfers))
    for a, b in zip(again, stock, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
    assert [t.report.replaced for t in transfers] == [36, 36]


def check_partial_denoise():
    recorder = Recorder()
    source = sample(host.attach(MODEL, recorder), denoise=0.5)
    assert len(recorder.store.header.sigmas) == STEPS
    again = sample(host.attach(MODEL, Transfer(recorder.store)), denoise=0.5)
    torch.testing.assert_close(again, source, rtol=0, atol=1e-4)


inside.report(globals())
