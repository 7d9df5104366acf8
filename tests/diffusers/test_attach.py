"""The diffusers host on a real pipeline: the demo model's `WanPipeline`."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from diffusers import FlowMatchHeunDiscreteScheduler, UniPCMultistepScheduler

from vdit_core.call import AttentionCall, Interceptor, ModelSignature, TokenGrid
from vdit_core.hosts.diffusers import attach
from vdit_core.recording.budget import MemoryBudget
from vdit_core.recording.recorder import Recorder
from vdit_core.recording.store import AttentionStore, Key
from vdit_core.selection import Indices, LayerMask, Selection
from vdit_core.tiny_wan.files import FRAMES, SIZE
from vdit_core.transfer import LiveTransfer, Transfer, TransferConfig, TransferError

SOURCE = "A car is driving on the highway"
TARGET = "A red car is driving on the highway"
STEPS = 3


@pytest.fixture(scope="module")
def stock(demo_model):
    """Latents of the source and of the target, nothing attached."""
    return demo_model.sample([SOURCE], [7], steps=STEPS), demo_model.sample([TARGET], [7], steps=STEPS)


@pytest.fixture(scope="module")
def store(demo_model, stock) -> AttentionStore:
    recorder = Recorder()
    with attach(demo_model.pipe, recorder):
        demo_model.sample([SOURCE], [7], steps=STEPS)
    return recorder.store


def transferred(demo_model, transfer, *behind, **options):
    with attach(demo_model.pipe, transfer, *behind):
        return demo_model.sample([TARGET], [7], **({"steps": STEPS} | options))


def test_observing_changes_no_bit(demo_model, stock):
    for interceptors in ((), (Interceptor(),), (Recorder(), Recorder(quantization="int8"))):
        with attach(demo_model.pipe, *interceptors):
            latents = demo_model.sample([SOURCE], [7], steps=STEPS)
        assert torch.equal(latents, stock[0])
    assert torch.equal(demo_model.sample([SOURCE], [7], steps=STEPS), stock[0])


def test_a_run_transferred_into_itself_is_itself(demo_model, stock, store):
    with attach(demo_model.pipe, Transfer(store)):
        latents = demo_model.sample([SOURCE], [7], steps=STEPS)
    assert torch.equal(latents, stock[0])


@pytest.mark.parametrize(
    "where",
    [TransferConfig(LayerMask("all:0")), TransferConfig(LayerMask("none")), TransferConfig(steps=Indices("none"))],
)
def test_strength_zero_and_empty_selections_change_no_bit(demo_model, stock, store, where):
    assert torch.equal(transferred(demo_model, Transfer(store, where)), stock[1])


def test_int8_moves_the_transferred_output_by_less_than_a_hundredth(demo_model, store):
    """Relative to the output, over all calls of a run; of single calls the worst is at one and a half."""

    class Compare(Interceptor):
        off = whole = 0.0

        def __call__(self, call, proceed):
            found = proceed(call)
            key = Key(store.find(call.site.sigma), call.site.rows[0].branch, call.site.layer)
            exact = F.scaled_dot_product_attention(*store.get(key, call.q.device, call.q.dtype), call.v)
            self.off += float((found - exact).square().sum())
            self.whole += float(exact.square().sum())
            return found

    recorder, compare = Recorder(quantization="int8"), Compare()
    with attach(demo_model.pipe, recorder):
        demo_model.sample([SOURCE], [7], steps=STEPS)
    transferred(demo_model, Transfer(recorder.store), compare)
    assert 0.001 < math.sqrt(compare.off / compare.whole) <= 0.01


def test_what_the_host_says_of_each_call(demo_model):
    class Notes(Interceptor):
        def __init__(self):
            self.sites = []

        def begin(self, run):
            self.run = run

        def __call__(self, call, proceed):
            self.sites.append(call.site)
            assert call.q.shape == call.k.shape == call.v.shape == (2, 2, 320, 128)
            return proceed(call)

    notes = Notes()
    with attach(demo_model.pipe, notes):
        demo_model.sample([SOURCE, TARGET], [1, 2], steps=STEPS)
    assert notes.run.model == ModelSignature(9, 2, 128)
    assert notes.run.grid == TokenGrid(5, 8, 8)
    assert notes.run.branches == ("cond", "uncond")
    assert notes.run.samples == 2
    assert notes.run.kind == "wan t2v 16 -> 16"
    assert notes.run.evaluations == 1
    assert notes.run.sigmas == pytest.approx([1, 2.001 / 2.334, 1.002 / 1.668])  # 3 u / (1 + 2 u) at u = 1, .667, .334
    calls = [(s.layer, s.step, s.rows[0].branch, s.visit) for s in notes.sites]
    assert calls == [(i, n, b, 0) for n in range(STEPS) for b in ("cond", "uncond") for i in range(9)]


def test_the_target_gets_the_sources_map_and_keeps_its_own_values(demo_model, store):
    """Every output of a transferred run against float64 maps of the recording, through the real model."""

    class Check(Interceptor):
        calls = 0

        def __call__(self, call: AttentionCall, proceed):
            output = proceed(call)
            evaluation = store.find(call.site.sigma)
            key = Key(evaluation, call.site.rows[0].branch, call.site.layer)
            q, k = store.get(key, torch.device("cpu"), torch.float64)
            wanted = torch.softmax(q @ k.mT / math.sqrt(128), -1) @ call.v.double()
            torch.testing.assert_close(output.double(), wanted, rtol=1e-4, atol=1e-4)
            self.calls += 1
            return output

    check, transfer = Check(), Transfer(store)
    with attach(demo_model.pipe, check, transfer):
        demo_model.sample([TARGET], [7], steps=STEPS)
    assert check.calls == transfer.report.replaced == transfer.report.expected == 9 * STEPS * 2


def test_live_equals_stored(demo_model, store):
    stored = transferred(demo_model, Transfer(store))
    live = LiveTransfer()
    with attach(demo_model.pipe, live):
        latents = demo_model.sample([SOURCE, TARGET, TARGET], [7, 7, 7], steps=STEPS)
    # Another batch size rounds otherwise, and guidance at few steps amplifies it.
    torch.testing.assert_close(latents[1:2], stored, rtol=0, atol=2e-3)
    torch.testing.assert_close(latents[2:3], stored, rtol=0, atol=2e-3)
    assert str(live.report) == f"replaced {9 * STEPS * 2} of {9 * STEPS * 2} calls"


@pytest.mark.parametrize(
    ("where", "masks", "rows"),
    [
        (TransferConfig(), None, 1),
        (TransferConfig(LayerMask("all:0.5")), None, 3),
        (TransferConfig(heads=Indices("1")), None, 3),
        (TransferConfig(), ("all", "none"), 2),
        (TransferConfig(), ("none", "all"), 2),
    ],
)
def test_queries_and_keys_that_nobody_uses_are_not_computed(demo_model, where, masks, rows):
    """And what comes out is what comes out behind an observer, who wants to see them all."""
    live = LiveTransfer(where, masks and tuple(map(LayerMask, masks)))
    block, counts = demo_model.pipe.transformer.blocks[4].attn1, []
    handle = block.to_q.register_forward_hook(lambda module, given, output: counts.append(len(output)))

    def sample(*interceptors: Interceptor) -> torch.Tensor:
        with attach(demo_model.pipe, *interceptors):
            return demo_model.sample([SOURCE, TARGET, TARGET], [7, 7, 7], steps=STEPS)

    try:
        latents = sample(live)
        assert counts == [rows] * STEPS * 2
        counts.clear()
        watched = sample(Interceptor(), live)
        assert counts == [3] * STEPS * 2
    finally:
        handle.remove()
    torch.testing.assert_close(latents, watched, rtol=0, atol=2e-3)


def test_live_transfer_from_other_noise_is_refused(demo_model):
    with (
        pytest.raises(TransferError, match=r"other noise than the source.*latents=noise\.expand"),
        attach(demo_model.pipe, LiveTransfer()),
    ):
        demo_model.sample([SOURCE, TARGET], [7, 8], steps=STEPS)


def test_transfer_changes_the_target(demo_model, stock, store):
    latents = transferred(demo_model, Transfer(store))
    assert (latents - stock[1]).abs().max() > 0.1


def test_a_saved_store_serves_as_well(demo_model, store, tmp_path):
    store.save(tmp_path / "car.safetensors")
    loaded = AttentionStore.load(tmp_path / "car.safetensors")
    assert torch.equal(transferred(demo_model, Transfer(loaded)), transferred(demo_model, Transfer(store)))


def test_one_recording_serves_a_batch(demo_model, store):
    with attach(demo_model.pipe, Transfer(store)):
        batch = demo_model.sample([TARGET, SOURCE], [7, 7], steps=STEPS)
    torch.testing.assert_close(batch[:1], transferred(demo_model, Transfer(store)), rtol=0, atol=2e-3)


def test_without_guidance_there_is_one_branch(demo_model, store):
    transfer = Transfer(store)
    transferred(demo_model, transfer, guidance=1.0)
    assert str(transfer.report) == f"replaced {9 * STEPS} of {9 * STEPS} calls"


def test_other_steps_are_refused_before_anything_is_computed(demo_model, stock, store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(type(demo_model.pipe.transformer.patch_embedding), "forward", lambda *_: pytest.fail("computed"))
        with pytest.raises(TransferError, match=r"Source: 3 steps, .* Target: 4 steps"):
            transferred(demo_model, Transfer(store), steps=4)
    assert torch.equal(demo_model.sample([TARGET], [7], steps=STEPS), stock[1])


def test_another_size_is_refused(demo_model, store):
    pipe = demo_model.pipe
    context = demo_model.text.encode([TARGET])
    with (
        pytest.raises(TransferError, match=r"another size than the source. Source: .* Target: "),
        attach(pipe, Transfer(store)),
    ):
        pipe(prompt_embeds=context, negative_prompt_embeds=0 * context, height=SIZE, width=SIZE, num_frames=FRAMES - 8,
             num_inference_steps=STEPS)  # fmt: skip


@pytest.mark.parametrize("failing_layer", [0, 5])
def test_after_an_error_the_pipeline_is_as_it_was(demo_model, stock, failing_layer):
    class Breaks(Interceptor):
        def __call__(self, call, proceed):
            if call.site.layer == failing_layer and call.site.step == 1:
                raise MemoryError("no room")
            return proceed(call)

    processors = [block.attn1.processor for block in demo_model.pipe.transformer.blocks]
    recorder = Recorder()
    with pytest.raises(MemoryError, match="no room"), attach(demo_model.pipe, recorder, Breaks()):
        demo_model.sample([SOURCE], [7], steps=STEPS)
    with pytest.raises(RuntimeError, match="no recording"):
        _ = recorder.store
    assert [block.attn1.processor for block in demo_model.pipe.transformer.blocks] == processors
    assert torch.equal(demo_model.sample([SOURCE], [7], steps=STEPS), stock[0])


def test_an_interrupted_run_leaves_no_recording(demo_model, stock):
    def interrupt():
        demo_model.pipe._interrupt = True

    recorder = Recorder()
    with attach(demo_model.pipe, recorder):
        demo_model.sample([SOURCE], [7], steps=STEPS, on_step=interrupt)
    with pytest.raises(RuntimeError, match="no recording"):
        _ = recorder.store
    assert torch.equal(demo_model.sample([SOURCE], [7], steps=STEPS), stock[0])


def test_one_block_is_one_run_of_one_attachment(demo_model):
    with attach(demo_model.pipe, Interceptor()):
        with pytest.raises(RuntimeError, match="Give one attach"), attach(demo_model.pipe, Interceptor()):
            pass
        demo_model.sample([SOURCE], [1], steps=1)
        with pytest.raises(RuntimeError, match="second sampling run"):
            demo_model.sample([SOURCE], [1], steps=1)


def test_a_model_called_without_a_context_is_refused(demo_model):
    latents, context = demo_model.noise([0]), demo_model.text.encode([SOURCE])
    demo_model.pipe.scheduler.set_timesteps(2)
    with pytest.raises(RuntimeError, match="cache_context"), attach(demo_model.pipe, Interceptor()):
        demo_model.pipe.transformer(latents, torch.tensor([1000.0]), context)


@pytest.mark.parametrize(
    ("scheduler", "evaluations"),
    [
        (UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0), 1),
        (FlowMatchHeunDiscreteScheduler(shift=3.0), 2),
    ],
    ids=["unipc", "heun"],
)
def test_other_schedulers_transfer_into_themselves_exactly(demo_model, monkeypatch, scheduler, evaluations):
    """UniPC's timesteps are rounded to whole numbers, Heun comes to each level twice, and its recording is so large."""
    monkeypatch.setattr(demo_model.pipe, "scheduler", scheduler)
    recorder = Recorder(Selection(Indices("2-4")), budget=MemoryBudget(3 * 4 * 2 * 2 * 320 * 256 * 4 * evaluations))
    with attach(demo_model.pipe, recorder):
        wanted = demo_model.sample([SOURCE], [3], steps=4)
    transfer = Transfer(recorder.store, TransferConfig(LayerMask("2-4")))
    with attach(demo_model.pipe, transfer):
        again = demo_model.sample([SOURCE], [3], steps=4)
    assert torch.equal(again, wanted)
    assert transfer.report.replaced == transfer.report.expected == 3 * 4 * 2
    assert transfer.report.missed == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_it_runs_on_cuda(store):
    from vdit_core.demo.model import DemoModel

    model = DemoModel.load("cuda")
    for interceptor in (Recorder(), Transfer(store), LiveTransfer()):
        with attach(model.pipe, interceptor):
            assert model.sample([SOURCE, TARGET], [7, 7], steps=STEPS).isfinite().all()
