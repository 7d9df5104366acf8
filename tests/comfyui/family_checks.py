"""Every network that the pack serves, small and with random weights: what is seen is its self-attention, and editing it
does what it says. Started by test_host.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import inside
import tiny_models
from inside import cases, host, raised_by, tiny, wan
from plain_attention import BruteForce, ByHand, Seen, WithoutKey, plain

# isort: split
import comfy.model_management
import comfy.nested_tensor
import comfy.sample
import torch
from pack.nodes.live_batch import batch, other_inputs
from pack.nodes.recording import Recording
from pack.vdit_core.call import Interceptor
from pack.vdit_core.maps.observer import MapObserver, from_store
from pack.vdit_core.recording.recorder import Recorder
from pack.vdit_core.recording.store import Evaluation, Key
from pack.vdit_core.sinks.control import SinkControl, Targets
from pack.vdit_core.sinks.observer import SinkObserver
from pack.vdit_core.sparse.config import SparseConfig
from pack.vdit_core.sparse.sparse_attention import SparseAttention
from pack.vdit_core.transfer import LiveTransfer, Transfer


def random(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def to_projection(name: str) -> Callable[[Any], list]:
    """What a layer's attention gives: (the module that gets it, its input's own part) of each layer."""
    return lambda network: [(block.get_submodule(name), slice(None)) for block in network.blocks]


@dataclass(frozen=True)
class Tried:
    """A network to try.

    make: the MODEL. outputs: of its network, which module gets the output of each layer's attention, and which part of
    its width that is. more: what its prompts have besides. text: the width of a prompt's tokens. size: of the latents.
    cfg: 1 where one prompt is computed alone. live: whether two prompts can be a batch. beside: latents of further
    streams. weighs_guides: whether it masks by weights, which keeps sparse attention dense.
    """

    make: Callable[[], Any]
    outputs: Callable[[Any], list] = field(default_factory=lambda: to_projection("self_attn.o"))
    more: Callable[[], dict[str, Any]] = dict
    text: int = 4096
    size: tuple[int, ...] = inside.SMALL
    cfg: float = 5.0
    live: bool = True
    beside: tuple[tuple[int, ...], ...] = ()
    weighs_guides: bool = False
    _model: list = field(default_factory=list)

    @property
    def model(self) -> Any:
        if not self._model:
            self._model.append(self.make())
        return self._model[0]

    def prompt(self, *seeds: int) -> list:
        """A conditioning of one prompt, or of several as one batch; seed 0 is the empty one."""
        tokens = [random(1, 6, self.text, seed=seed) if seed else torch.zeros(1, 6, self.text) for seed in seeds]
        return [[torch.cat(tokens), self.more()]]

    def empty(self, videos: int = 1) -> Any:
        """A latent of nothing, nested where it is of several streams."""
        streams = [torch.zeros(videos, *one) for one in (self.size, *self.beside)]
        return comfy.nested_tensor.NestedTensor(streams) if self.beside else streams[0]

    def sample(self, *interceptors: Interceptor, seeds: tuple[int, ...] = (1,), steps: int = 2) -> torch.Tensor:
        """The video's latents."""
        patched = self.model
        for one in interceptors:
            patched = host.attach(patched, one, required=True)
        streams = [random(1, *one, seed=7).repeat(len(seeds), *[1] * len(one)) for one in (self.size, *self.beside)]
        noise = comfy.nested_tensor.NestedTensor(streams) if self.beside else streams[0]
        found = comfy.sample.sample(
            patched, noise, steps, self.cfg, "euler", "simple", self.prompt(*seeds), self.prompt(0),
            self.empty(len(seeds)), disable_pbar=True, seed=7,
        )  # fmt: skip
        comfy.model_management.unload_all_models()  # or each further run looks for garbage first
        return found.unbind()[0] if self.beside else found


def of_vace(network: Any) -> list:
    return [(block.self_attn.o, slice(None)) for block in (*network.blocks, *network.vace_blocks)]


def of_hunyuan(network: Any) -> list:
    double = [(block.img_attn.proj, slice(None)) for block in network.double_blocks]
    return double + [(block.linear2, slice(0, network.hidden_size)) for block in network.single_blocks]


def of_ltx(network: Any) -> list:
    return [(block.attn1.to_out, slice(None)) for block in network.transformer_blocks]


def guided(strength: float) -> Callable[[], dict[str, Any]]:
    """A guide picture behind two frames of video, of 4 x 4 tokens."""
    places = torch.zeros(1, 3, 16, 2)
    entry = {"pre_filter_count": 16, "strength": strength, "pixel_mask": None, "latent_shape": (1, 4, 4)}
    return lambda: {"keyframe_idxs": places, "guide_attention_entries": [entry],
                    "denoise_mask": torch.ones(1, 1, 3, 4, 4)} | seen()  # fmt: skip


def seen() -> dict[str, Any]:
    """A prompt without padding, as LTX wants to be told."""
    return {"attention_mask": torch.ones(1, 6, dtype=torch.long)}


#: Name: what is tried.
FAMILIES: dict[str, Any] = {
    "Wan T2V": Tried(tiny),
    "Wan VACE": Tried(
        lambda: tiny(wan.VaceWanModel, model_type="vace", vace_layers=1, vace_in_dim=96), of_vace,
        more=lambda: {"vace_frames": [random(1, 32, 2, 8, 8)], "vace_mask": [random(1, 64, 2, 8, 8)],
                      "vace_strength": [1.0]},
    ),
    "Wan VACE, two controls": Tried(
        lambda: tiny(wan.VaceWanModel, model_type="vace", vace_layers=2, vace_in_dim=96), of_vace,
        more=lambda: {"vace_frames": [random(1, 32, 2, 8, 8)] * 2, "vace_mask": [random(1, 64, 2, 8, 8)] * 2,
                      "vace_strength": [1.0, 0.5]},
    ),
    "Wan Camera": Tried(
        lambda: tiny(wan.CameraWanModel, model_type="camera", in_dim=32),
        more=lambda: {"camera_conditions": random(1, 24, 2, 64, 64)},
    ),
    "Wan HuMo": Tried(
        lambda: tiny(wan.HumoWanModel, model_type="humo"), more=lambda: {"audio_embed": random(1, 2, 8, 5, 1280)}
    ),
    "Wan HuMo, a reference": Tried(
        lambda: tiny(wan.HumoWanModel, model_type="humo"),
        more=lambda: {"audio_embed": random(1, 2, 8, 5, 1280), "reference_latents": [random(1, 16, 1, 8, 8)]},
    ),
    "Wan S2V": Tried(
        lambda: tiny(wan.WanModel_S2V, model_type="s2v"),
        more=lambda: {"audio_embed": random(1, 25, 1024, 8), "reference_latents": [random(1, 16, 1, 8, 8)]},
    ),
    "Wan S2V, earlier frames": Tried(
        lambda: tiny(wan.WanModel_S2V, model_type="s2v"),
        more=lambda: {"audio_embed": random(1, 25, 1024, 8), "reference_latents": [random(1, 16, 1, 8, 8)],
                      "reference_motion": random(1, 16, 19, 8, 8)},
    ),
    "Wan Animate": Tried(
        lambda: tiny_models.wan("WAN22_Animate"), more=lambda: {"pose_video_latent": random(1, 16, 1, 8, 8)}
    ),
    "Wan SCAIL": Tried(
        lambda: tiny_models.wan("WAN21_SCAIL", in_dim=20),
        more=lambda: {"reference_latents": [random(1, 16, 1, 8, 8)], "pose_video_latent": random(1, 16, 2, 4, 4)},
    ),
    "HunyuanVideo": Tried(
        tiny_models.hunyuan_video, of_hunyuan, lambda: {"pooled_output": random(1, 12)}, text=24
    ),
    "HunyuanVideo, padded": Tried(
        tiny_models.hunyuan_video, of_hunyuan,
        lambda: {"pooled_output": random(1, 12), "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0]])},
        text=24, cfg=1.0, live=False,  # ComfyUI's class takes a mask for one video alone
    ),
    "HunyuanVideo, a reference": Tried(
        tiny_models.hunyuan_video, of_hunyuan,
        lambda: {"pooled_output": random(1, 12), "ref_latent": random(1, 16, 1, 8, 8)},
        text=24, cfg=1.0, live=False,  # as above
    ),
    "HunyuanVideo, an odd size": Tried(
        tiny_models.hunyuan_video, of_hunyuan, lambda: {"pooled_output": random(1, 12)}, text=24, size=(16, 2, 6, 10)
    ),
    "HunyuanVideo 1.5": Tried(
        tiny_models.hunyuan_video_15, of_hunyuan,
        lambda: {"pooled_output": None, "conditioning_byt5small": random(1, 3, 1472)}, text=24, size=(32, 2, 4, 4),
    ),
    "Mochi": Tried(
        tiny_models.mochi, to_projection("attn.proj_x"), seen, text=32, size=(12, 2, 8, 8),
    ),
    "Mochi, padded": Tried(
        tiny_models.mochi, to_projection("attn.proj_x"),
        lambda: {"attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0]])}, text=32, size=(12, 2, 8, 8),
    ),
    "CogVideoX": Tried(tiny_models.cogvideox, to_projection("attn_out"), text=24),
    "CogVideoX 1.5": Tried(
        lambda: tiny_models.cogvideox(patch_size_t=2), to_projection("attn_out"), text=24, size=(16, 3, 7, 8)
    ),
    "LTX-Video": Tried(tiny_models.ltx_video, of_ltx, seen, text=24, size=(128, 2, 4, 4)),
    "LTX-Video, a guide": Tried(tiny_models.ltx_video, of_ltx, guided(1.0), text=24, size=(128, 3, 4, 4)),
    "LTX-Video, a guide with a weight": Tried(
        tiny_models.ltx_video, of_ltx, guided(0.5), text=24, size=(128, 3, 4, 4), weighs_guides=True
    ),
    "LTX-2": Tried(tiny_models.ltx_2, of_ltx, seen, text=48, size=(128, 2, 4, 4), beside=((8, 5, 16),)),
    "Cosmos Predict2": Tried(tiny_models.cosmos_predict2, to_projection("self_attn.output_proj"), text=24),
    "Kandinsky 5": Tried(
        tiny_models.kandinsky5,
        lambda network: [(b.self_attention.out_layer, slice(None)) for b in network.visual_transformer_blocks],
        lambda: {"pooled_output": random(1, 12)}, text=24,
    ),
}  # fmt: skip


@cases(FAMILIES)
def check_what_is_seen_is_the_self_attention(tried):
    """The reference: what each block's self-attention hands to its output projection."""
    stock, given = tried.sample(), []
    places = tried.outputs(tried.model.model.diffusion_model)

    def note(layer, part):
        def hook(module, args):
            if not given or given[-1][0] != layer:  # of VACE's several controls the first one is served
                given.append((layer, args[0][..., part].clone()))

        return hook

    hooks = [module.register_forward_pre_hook(note(n, part)) for n, (module, part) in enumerate(places)]
    seen = Seen()
    try:
        assert torch.equal(tried.sample(seen), stock)
    finally:
        for hook in hooks:
            hook.remove()
    assert stock.isfinite().all()
    assert len(seen.calls) == len(given) == len(places) * 2
    assert [call.site.layer for call in seen.calls] == [layer for layer, _ in given]
    assert sorted(call.site.layer for call in seen.calls) == sorted([*range(len(places))] * 2)
    assert seen.run.model.layers == len(places)
    for call, (_, output) in zip(seen.calls, given, strict=True):
        assert call.q.shape[2] == call.site.run.grid.tokens == seen.run.grid.tokens
        found = call.of_grid(plain(call)).transpose(1, 2).flatten(2)
        tokens = found.shape[1]
        first = 0 if output.shape[1] == tokens or call.joint is None else call.joint.q_start
        output = output[:, first : first + tokens]
        torch.testing.assert_close(output.double(), found, rtol=1e-4, atol=1e-5 * float(found.abs().max()))


@cases(FAMILIES)
def check_a_recording_put_into_its_own_run_changes_nothing(tried):
    recorder = Recorder()
    stock = tried.sample(recorder)
    transfer = Transfer(recorder.take())
    assert torch.equal(tried.sample(transfer), stock)
    assert transfer.report.replaced == transfer.report.expected > 0


@cases(FAMILIES)
def check_a_transfer_is_other_queries_and_keys(tried):
    recorder, seen = Recorder(), Seen()
    tried.sample(recorder, seen, seeds=(2,))
    found, stock = tried.sample(Transfer(recorder.take())), tried.sample()
    assert torch.equal(found, tried.sample(ByHand(seen.calls)))
    assert not torch.equal(found, stock)


@cases(FAMILIES)
def check_a_live_transfer_is_the_stored_one(tried):
    """A batch changes nothing but the rows that are computed together."""
    if not tried.live:
        raise inside.Absent("ComfyUI's class takes these prompts one at a time")
    recorder = Recorder()
    tried.sample(recorder, seeds=(2,))
    stored = tried.sample(Transfer(recorder.take()))
    live = tried.sample(LiveTransfer(), seeds=(2, 1))
    torch.testing.assert_close(live[1:], stored, rtol=1e-3, atol=1e-4 * float(stored.abs().max()))


def text_share_of(call):
    """What the grid's queries give to keys beside the grid: float64 (rows, heads)."""
    if call.joint is None:
        return torch.zeros(call.q.shape[:2]).double()
    inside = torch.zeros(call.joint.k.shape[2]).double()
    inside[call.joint.k_start : call.joint.k_start + call.joint.tokens] = 1
    whole_call = replace(call, joint=replace(call.joint, v=inside[:, None].expand(*call.joint.k.shape[:3], 1)))
    return 1 - whole_call.of_grid(plain(replace(whole_call, v=whole_call.joint.of_grid()[2])))[..., 0].mean(2)


@cases(FAMILIES)
def check_structure_and_sinks_are_those_of_the_plain_map(tried):
    """Over the grid's own part of the map, whose rows then add up to 1 again."""
    seen, structure, sinks, recorder = Seen(), MapObserver(), SinkObserver(), Recorder()
    tried.sample(seen, structure, sinks, recorder)
    store = recorder.take()
    shown, measured = structure.observed.calls, sinks.record.calls
    assert len(shown) == len(measured) == len(seen.calls) * len(seen.run.branches)
    recorded = from_store(store).calls
    for call in seen.calls:
        for branch in seen.run.branches:
            rows = [i for i, row in enumerate(call.site.rows) if row.branch == branch]
            key = Key(Evaluation(call.site.sigma, call.site.visit), branch, call.site.layer)
            q, k = (x[rows].double() for x in (call.q, call.k))
            map_, grid = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1), call.site.run.grid
            inner = slice(grid.prefix, grid.tokens - grid.suffix)
            frames = map_[:, :, inner, inner].unflatten(3, (grid.frames, -1)).unflatten(2, (grid.frames, -1))
            torch.testing.assert_close(shown[key].frames.value.double(), frames.sum(-1).mean(3), rtol=1e-3, atol=1e-5)
            share = text_share_of(call)[rows]
            for found in (shown[key].text, recorded[key].text):
                if found is not None or bool(share.any()):
                    torch.testing.assert_close(found.double(), share, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(
                measured[key].mass[:, 0].double(), map_[0].mean(1).max(1).values, rtol=1e-3, atol=1e-5
            )


@cases(FAMILIES)
def check_sparse_attention_that_keeps_all_is_stock(tried):
    assert torch.equal(
        tried.sample(SparseAttention(SparseConfig("exact top-k", 1.0, minimum_tokens=0, dense_first=0.0))),
        tried.sample(),
    )


@cases(FAMILIES)
def check_a_sink_that_is_masked_is_seen_by_nobody(tried):
    seen = Seen()
    stock = tried.sample(seen, steps=1)
    control = SinkControl(Targets(seen.run.model, seen.run.grid, {(0, 0): (3,)}), "mask")
    found, expected = tried.sample(control, steps=1), tried.sample(WithoutKey(3), steps=1)
    assert not torch.equal(found, stock)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


OF_NODES = {"Wan T2V": "Wan T2V", "LTX-2": "LTX-2", "HunyuanVideo": "HunyuanVideo"}


@cases(OF_NODES)
def check_recording_and_live_batch_take_its_latents(name):
    """What the nodes do with a latent: of LTX-2 it is of video and audio."""
    tried = FAMILIES[name]
    latent = {"samples": tried.empty()}
    positive, repeated = batch([tried.prompt(2), tried.prompt(1)], latent)
    noise = comfy.sample.prepare_noise(repeated["samples"], 7, repeated["batch_index"])
    assert all(torch.equal(x[0], x[1]) for x in (noise.unbind() if tried.beside else [noise]))
    recording, transfer, wrong = Recording(Recorder()), LiveTransfer(), []
    model = host.attach(tried.model, recording.recorder, recording.ended)
    check = partial(other_inputs, positive, repeated)
    model = host.attach(model, transfer, check=lambda *given: wrong.append(check(*given)))
    found = comfy.sample.sample(
        model, noise, 2, tried.cfg, "euler", "simple", positive, tried.prompt(0), repeated["samples"],
        disable_pbar=True, seed=7,
    )  # fmt: skip
    assert wrong == [None]
    assert transfer.report.replaced == transfer.report.expected > 0
    assert len(recording.claim(found).store) == transfer.report.expected


@cases(FAMILIES)
def check_prompts_of_two_lengths_are_one_batch_only_where_zeros_change_nothing(tried):
    """Only then a prompt in a batch gives what it gives alone."""
    longer = [[torch.cat([tried.prompt(2)[0][0], random(1, 2, tried.text)], dim=1), {}]]
    shorter = [[tried.prompt(1)[0][0], {}]]
    latent, fill = {"samples": tried.empty()}, host.fills_text(tried.model)
    assert fill == tried.model.model.diffusion_model.__class__.__module__.startswith("comfy.ldm.wan.")
    error = raised_by(batch, [longer, shorter], latent, fill)
    assert (error is None) if fill else ("8 and 6 tokens long" in str(error)), error


METHODS = {"exact top-k": "exact top-k", "block top-k": "block top-k", "window": "window", "radial": "radial"}


@cases(FAMILIES, METHODS)
def check_sparse_attention_is_the_masked_map(tried, method):
    editor = SparseAttention(SparseConfig(method, 0.5, minimum_tokens=0, dense_first=0.0, if_slower="sparse"))
    found, dense = tried.sample(editor, steps=1), tried.sample(steps=1)
    assert (editor.report.why_dense is not None) == tried.weighs_guides
    if editor.report.why_dense:
        assert "gives guides a weight" in editor.report.why_dense
        expected = dense
    else:
        assert editor.report.sparse == editor.report.expected > 0
        assert not torch.equal(found, dense)
        expected = tried.sample(BruteForce(method, 0.5), steps=1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


inside.report(globals())
