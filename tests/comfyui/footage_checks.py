"""Edits of footage through ComfyUI's own guider and samplers, on the demo model. Started by test_host.py."""

from __future__ import annotations

import gc
import weakref
from itertools import pairwise

import inside
from inside import MODEL, NOTHING, SMALL, SOURCE, TARGET, Watch, both_prompts, host, raised_by, sample, shallow

# isort: split
import comfy.samplers
import torch
from pack.vdit_core.footage.config import EditConfig
from pack.vdit_core.footage.flow_edit import FlowEdit, straight
from pack.vdit_core.recording.recorder import Recorder
from pack.vdit_core.selection import LayerMask
from pack.vdit_core.sparse.config import SparseConfig
from pack.vdit_core.sparse.sparse_attention import SparseAttention
from pack.vdit_core.transfer import LiveTransfer, Transfer, TransferConfig

SHALLOW = shallow(3)
FOOTAGE = torch.randn((1, *SMALL), generator=torch.Generator().manual_seed(4))
CONFIG = EditConfig(change=0.8, source_guidance=1.5, target_guidance=3.0, finish=0)
#: They add noise in every step, or follow the negative prompt alone.
REFUSED = (
    "euler_ancestral",
    "dpmpp_sde",
    "lcm",
    "ddpm",
    "euler_cfg_pp",
    "res_multistep_cfg_pp",
    "seeds_2",
    "sa_solver",
)
TAKEN = ("heun", "dpm_2", "dpmpp_2m", "ipndm", "deis", "res_multistep", "uni_pc", "gradient_estimation")


def guider(model=None, positive=None, config=CONFIG, interceptor=None, footage=FOOTAGE, **told):
    """A guider of an edit with the clip's maps; or with an interceptor instead, or (False) without any."""
    model = SHALLOW if model is None else model
    if interceptor is not False:
        model = host.attach(model, interceptor or LiveTransfer(), told.get("on_end"))
    return host.FootageGuider(model, both_prompts() if positive is None else positive, NOTHING, footage, config)


def levels(steps=5):
    return comfy.samplers.calculate_sigmas(MODEL.get_model_object("model_sampling"), "simple", steps)


def run(edit, sampler="euler", sigmas=None, latent=FOOTAGE, seed=7, **more):
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))
    sigmas = levels() if sigmas is None else sigmas
    return edit.sample(
        noise, latent.clone(), comfy.samplers.sampler_object(sampler), sigmas, seed=seed, disable_pbar=True, **more
    )


def reference():
    """The edit written out: each row by ComfyUI's own CFGGuider, by itself, on the stock model."""
    format = SHALLOW.model.latent_format
    footage = format.process_in(FOOTAGE)
    flow, edit = FlowEdit(footage, CONFIG, 7), footage.clone()

    def denoised(x, sigma, prompt, cfg):
        one = comfy.samplers.CFGGuider(SHALLOW)
        one.set_conds(prompt, NOTHING)
        one.set_cfg(cfg)
        seen = []

        class Once(comfy.samplers.Sampler):
            def sample(self, model_wrap, sigmas, extra_args, *_, **__):
                seen.append(model_wrap(x, torch.tensor([sigma]), extra_args["model_options"], seed=7))
                return x

        one.sample(torch.zeros_like(x), torch.zeros_like(x), Once(), torch.tensor([sigma, 0.0]), disable_pbar=True)
        return seen[0]

    for sigma, following in pairwise(levels().tolist()[1:]):
        source = straight(sigma, flow.noise(sigma, 0), footage)
        target = source + edit - footage
        step = (target - denoised(target, sigma, TARGET, 3.0)) - (source - denoised(source, sigma, SOURCE, 1.5))
        edit = edit + (following - sigma) * step / sigma
    return format.process_out(edit)


def check_it_is_the_algorithm_by_stock_guiders():
    for interceptor in (False, LiveTransfer(TransferConfig(LayerMask("none")))):
        found = run(guider(interceptor=interceptor))
        torch.testing.assert_close(found, reference(), rtol=0, atol=2e-3)
    assert float((run(guider()) - found).abs().max()) > 1e-2, "the clip's maps change nothing"


def check_one_prompt_keeps_the_clip():
    same = [[SOURCE[0][0].repeat(2, 1, 1), {}]]
    config = EditConfig(source_guidance=2.0, target_guidance=2.0, finish=0)
    for sampler in ("euler", "dpmpp_2m", "uni_pc"):
        found = run(guider(positive=same, config=config), sampler)
        torch.testing.assert_close(found, FOOTAGE, rtol=0, atol=2e-3)


def check_rows_and_branches_are_told():
    watch = Watch()
    run(guider(interceptor=watch))
    (seen,) = watch.runs
    assert (seen.samples, seen.branches, seen.one_noise) == (2, ("cond", "uncond"), True), seen
    assert len(watch.calls) == 3 * 4 * 2 / (len(watch.calls[0].rows) / 2), len(watch.calls)
    watch = Watch()
    run(guider(interceptor=watch, config=EditConfig(source_guidance=1, target_guidance=1)))
    assert watch.runs[0].branches == ("cond",), watch.runs[0].branches
    assert all(row.branch == "cond" for site in watch.calls for row in site.rows)


def check_recorded_maps_serve_as_live_ones():
    """A walk without target prompts records the footage; every edit of it takes the maps from the store."""
    recorder = Recorder()
    walk = guider(positive=SOURCE, interceptor=recorder)
    torch.testing.assert_close(run(walk), FOOTAGE, rtol=0, atol=1e-5)
    transfer = Transfer(recorder.store)
    found = run(guider(interceptor=transfer))
    torch.testing.assert_close(found, run(guider()), rtol=0, atol=2e-3)
    assert transfer.report.verdict().level.value == "done", transfer.report


def check_two_samplers_share_an_edit():
    """As two experts do: the second goes on from the first one's latent, and from its own guider."""
    whole = run(guider())
    first = run(guider(), sigmas=levels()[:4])
    torch.testing.assert_close(run(guider(), sigmas=levels()[3:], latent=first), whole, rtol=0, atol=2e-3)


def check_a_mask_keeps_the_rest():
    mask = torch.zeros(1, 1, *SMALL[1:])
    mask[..., :4] = 1
    found = run(guider(), denoise_mask=mask)
    torch.testing.assert_close(found[..., 4:], FOOTAGE[..., 4:], rtol=0, atol=1e-5)
    assert float((found - FOOTAGE)[..., :4].abs().max()) > 1e-2


def check_steps_that_are_left_out():
    """Their latent comes back, and whoever wants to know is told; progress counts them as done."""
    told, steps = [], []
    skipped = host.FootageGuider(
        SHALLOW, both_prompts(), NOTHING, FOOTAGE, CONFIG, on_nothing=lambda: told.append(True)
    )
    found = run(skipped, sigmas=levels()[:2])
    assert told == [True]
    torch.testing.assert_close(found, FOOTAGE, rtol=0, atol=0)
    run(guider(), callback=lambda step, denoised, x, total: steps.append((step, total)))
    assert steps == [(1, 5), (2, 5), (3, 5), (4, 5)], steps


def check_several_targets():
    three = [[torch.cat([SOURCE[0][0], TARGET[0][0], SOURCE[0][0]]), {}]]
    found = run(guider(positive=three), latent=FOOTAGE.repeat(2, 1, 1, 1, 1))
    torch.testing.assert_close(found[:1], run(guider()), rtol=0, atol=2e-3)


def check_short_long_and_odd_clips():
    """Of 1, 5 and 81 frames, and of a size that the model pads."""
    for size in ((16, 1, 8, 8), (16, 2, 8, 8), (16, 21, 4, 4), (16, 3, 7, 9)):
        clip = torch.randn((1, *size), generator=torch.Generator().manual_seed(4))
        transfer = LiveTransfer()
        found = run(guider(footage=clip, interceptor=transfer), latent=clip)
        assert found.shape == clip.shape, size
        assert found.isfinite().all(), size
        assert transfer.report.replaced == transfer.report.expected == 3 * 4 * 2, (size, transfer.report)


def check_sparse_attention_and_int8_compose():
    plain = run(guider())
    whole = SparseAttention(SparseConfig("exact top-k", 1.0, dense_first=0, minimum_tokens=0, if_slower="sparse"))
    found = run(guider(host.attach(SHALLOW, whole)))
    torch.testing.assert_close(found, plain, rtol=0, atol=2e-3)
    recorder = Recorder(quantization="int8")
    torch.testing.assert_close(run(guider(host.attach(SHALLOW, recorder))), plain, rtol=0, atol=2e-3)
    assert recorder.store.header.samples == 2


def check_samplers_that_add_noise_are_refused():
    for name in REFUSED:
        error = raised_by(run, guider(), name)
        assert error is not None, f"{name} is taken"
        assert name in str(error), f"{name}: {error!r}"
        assert "euler" in str(error) or "res_multistep" in str(error), f"{name}: {error!r}"


def check_samplers_that_add_none_are_taken():
    plain = run(guider(), sigmas=levels(20))
    for name in TAKEN:
        found = run(guider(), name, sigmas=levels(20))
        apart = float((found - plain).abs().mean() / (plain - FOOTAGE).abs().mean())
        assert 0 < apart < 0.5, f"{name} is {apart:.2f} of the edit away from euler's"


def check_another_latent_is_refused():
    error = raised_by(run, guider(), latent=torch.zeros(1, 16, 3, 8, 8))
    assert "1 x 16 x 3 x 8 x 8" in str(error), error
    assert "Edit Footage's own latent" in str(error), error


def check_an_interrupt_leaves_the_model_as_it_was():
    before = sample(SHALLOW, size=SMALL)

    def stop(step, *_):
        if step == 3:
            raise KeyboardInterrupt

    edit = guider()
    assert isinstance(raised_by(run, edit, callback=stop), KeyboardInterrupt)
    assert edit._flow is None
    assert edit.report.evaluations == 3, edit.report
    assert torch.equal(sample(SHALLOW, size=SMALL), before)
    torch.testing.assert_close(run(edit), run(guider()), rtol=0, atol=1e-5)


def check_a_guider_goes_with_its_last_reference():
    """Without the cyclic collector: it holds a clip's latents."""
    gc.collect()
    gc.disable()
    try:
        edit = guider()
        run(edit)
        gone = weakref.ref(edit)
        del edit
        assert gone() is None
    finally:
        gc.enable()


def check_memory_is_asked_for_all_rows():
    asked = []
    need = type(SHALLOW.model).memory_required

    def memory_required(self, input_shape, *args, **kwargs):
        asked.append(input_shape[0])
        return need(self, input_shape, *args, **kwargs)

    type(SHALLOW.model).memory_required = memory_required
    try:
        run(guider())
        mine, asked[:] = max(asked), []
        sample(SHALLOW, size=SMALL)
    finally:
        type(SHALLOW.model).memory_required = need
    assert mine == 2 * max(asked), (mine, asked)


def check_a_driven_row_is_the_footage():
    """Video to video under the clip's maps: row 0 is the clip at every level, whatever the sampler has there."""
    clip = torch.randn((1, *SMALL), generator=torch.Generator().manual_seed(9))
    noise = torch.randn((1, *SMALL), generator=torch.Generator().manual_seed(7)).repeat(2, 1, 1, 1, 1)
    seen = []
    network = SHALLOW.model.diffusion_model
    hook = network.patch_embedding.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    outcomes = []
    transfer = LiveTransfer(footage=clip)
    try:
        sample(
            host.attach(SHALLOW, transfer, outcomes.append), both_prompts(), videos=2, noise=noise,
            latent=clip.repeat(2, 1, 1, 1, 1), denoise=0.6, steps=4,
        )  # fmt: skip
    finally:
        hook.remove()
    inner = SHALLOW.model.latent_format.process_in(clip)
    scaled = comfy.samplers.calculate_sigmas(MODEL.get_model_object("model_sampling"), "simple", int(4 / 0.6))[-5:]
    sources = [rows[row] for rows in seen for row in range(0, len(rows), 2)]
    for sigma in scaled[:-1].tolist():
        wanted = straight(sigma, noise[0], inner[0])
        assert min(float((source - wanted).abs().max()) for source in sources) < 1e-4, sigma
    assert outcomes[0].caveat is None, outcomes[0].caveat
    assert transfer.report.replaced == transfer.report.expected, transfer.report


def check_a_driven_row_needs_noise():
    transfer, outcomes = LiveTransfer(footage=FOOTAGE), []
    error = raised_by(
        sample, host.attach(SHALLOW, transfer, outcomes.append), both_prompts(), noise=torch.zeros(2, *SMALL),
        latent=FOOTAGE.repeat(2, 1, 1, 1, 1), start_step=1,
    )  # fmt: skip
    assert "adds no noise" in str(error), error
    assert "adds no noise" in outcomes[0].error, outcomes[0]


inside.report(globals())
