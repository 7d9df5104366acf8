"""Every pipeline that the diffusers host serves, small and with random weights: what is seen is its self-attention, and
editing it does what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch

from vdit_core import AttentionCall, Interceptor, LiveTransfer, Recorder, Transfer, attach
from vdit_core.maps.observer import MapObserver
from vdit_core.recording.store import Evaluation, Key
from vdit_core.sinks.observer import SinkObserver
from vdit_core.sparse.config import SparseConfig
from vdit_core.sparse.sparse_attention import SparseAttention

EULER = diffusers.FlowMatchEulerDiscreteScheduler
SMALL: dict[str, Any] = {"num_attention_heads": 2, "attention_head_dim": 16}


class Stub:
    """A part of a pipeline that says what it is asked for and does nothing."""

    def __init__(self, **parts: Any) -> None:
        vars(self).update(parts)


def random(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def padded(tokens: int) -> torch.Tensor:
    """The mask of a prompt of six places."""
    return (torch.arange(6) < tokens)[None].long()


def pipeline(kind: str, transformer: str, scheduler: Any, settings: dict[str, Any], **parts: Any) -> Any:
    torch.manual_seed(0)
    network = getattr(diffusers, transformer)(**SMALL | settings).eval()
    for x in network.parameters():
        x.data += 0.1 * torch.randn(x.shape)
    others = dict.fromkeys(("vae", "text_encoder", "tokenizer"))
    pipe = getattr(diffusers, kind)(transformer=network, scheduler=scheduler, **others | parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def two_encoders() -> dict[str, None]:
    return dict.fromkeys(("text_encoder_2", "tokenizer_2"))


def hunyuan_video() -> Any:
    settings = {"in_channels": 4, "out_channels": 4, "num_layers": 1, "num_single_layers": 2, "num_refiner_layers": 1,
                "patch_size": 2, "patch_size_t": 1, "guidance_embeds": True, "text_embed_dim": 16,
                "pooled_projection_dim": 8, "rope_axes_dim": (4, 6, 6)}  # fmt: skip
    return pipeline("HunyuanVideoPipeline", "HunyuanVideoTransformer3DModel", EULER(shift=7.0), settings,
                    **two_encoders())  # fmt: skip


def hunyuan_video_15() -> Any:
    settings = {"in_channels": 9, "out_channels": 4, "num_layers": 2, "num_refiner_layers": 1, "patch_size": 1,
                "patch_size_t": 1, "text_embed_dim": 16, "text_embed_2_dim": 12, "image_embed_dim": 10,
                "rope_axes_dim": (4, 6, 6)}  # fmt: skip
    vae = Stub(config=Stub(latent_channels=4), spatial_compression_ratio=16,
                          temporal_compression_ratio=4)  # fmt: skip
    return pipeline("HunyuanVideo15Pipeline", "HunyuanVideo15Transformer3DModel", EULER(shift=7.0), settings,
                    vae=vae, guider=diffusers.ClassifierFreeGuidance(guidance_scale=3.0), **two_encoders())  # fmt: skip


def mochi() -> Any:
    settings = {"patch_size": 2, "num_layers": 2, "pooled_projection_dim": 16, "in_channels": 4, "text_embed_dim": 16,
                "time_embed_dim": 16, "max_sequence_length": 6}  # fmt: skip
    return pipeline("MochiPipeline", "MochiTransformer3DModel", EULER(invert_sigmas=True), settings)


def cogvideox() -> Any:
    settings = {"in_channels": 4, "out_channels": 4, "time_embed_dim": 8, "text_embed_dim": 16, "num_layers": 2,
                "sample_width": 8, "sample_height": 8, "sample_frames": 5, "max_text_seq_length": 6,
                "use_rotary_positional_embeddings": True}  # fmt: skip
    scheduler = diffusers.CogVideoXDDIMScheduler(
        rescale_betas_zero_snr=True, prediction_type="v_prediction", timestep_spacing="trailing"
    )
    return pipeline("CogVideoXPipeline", "CogVideoXTransformer3DModel", scheduler, settings)


def ltx_video() -> Any:
    settings = {"in_channels": 8, "out_channels": 8, "cross_attention_dim": 32, "num_layers": 2, "caption_channels": 16}
    return pipeline("LTXPipeline", "LTXVideoTransformer3DModel", EULER(), settings)


def cosmos() -> Any:
    settings = {"in_channels": 5, "out_channels": 4, "num_layers": 2, "text_embed_dim": 16, "adaln_lora_dim": 4,
                "max_size": (4, 16, 16), "patch_size": (1, 2, 2), "rope_scale": (1.0, 3.0, 3.0),
                "concat_padding_mask": False, "extra_pos_embed_type": None}  # fmt: skip
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
                                     latents_mean=[0.0] * 4, latents_std=[1.0] * 4)  # fmt: skip
    passes = Stub(to=lambda *_: None, check_text_safety=lambda _: True, check_video_safety=lambda v: v)
    return pipeline("Cosmos2VideoToWorldPipeline", "CosmosTransformer3DModel", EULER(use_karras_sigmas=True), settings,
                    vae=vae, safety_checker=passes)  # fmt: skip


@cache
def made(make: Callable[[], Any]) -> Any:
    """One pipeline serves all tests."""
    return make()


@dataclass(frozen=True)
class Tried:
    """A pipeline to try.

    prompt: seed -> what it is given of a prompt. more: what else. branches: what is computed; told: whether `attach`
    has to be given it. batches: whether the pipeline computes several videos together. where: a block's attention.
    noise: the shape of the latents to begin with, where a generator for each video will not do.
    """

    make: Callable[[], Any]
    prompt: Callable[[int], dict[str, Any]]
    more: dict[str, Any]
    branches: tuple[str, ...] = ("cond", "uncond")
    told: bool = False
    batches: bool = True
    where: str = "attn1"
    noise: tuple[int, ...] | None = None

    def pipe(self) -> Any:
        return made(self.make)

    @torch.no_grad()
    def sample(self, *interceptors: Interceptor, seeds: tuple[int, ...] = (1,)) -> torch.Tensor:
        """The video's latents."""
        pipe, prompts = self.pipe(), [self.prompt(seed) for seed in seeds]
        given = {name: torch.cat([prompt[name] for prompt in prompts]) for name in prompts[0]}
        start: dict[str, Any] = {"generator": [torch.Generator().manual_seed(0) for _ in seeds]}
        if self.noise is not None:
            latents = random(1, *self.noise).repeat(len(seeds), *[1] * len(self.noise))
            start = {"latents": latents, "generator": torch.Generator().manual_seed(0)}
        with attach(pipe, *interceptors, branches=self.branches if self.told else None):
            output = pipe(**given, **self.more, num_inference_steps=2, output_type="latent", **start)
        return output.frames


def embedded(*names: str) -> Callable[[int], dict[str, Any]]:
    """A prompt of six tokens, and as many for the negative one."""
    return lambda seed: {f"{side}prompt_embeds": random(1, 6, 16, seed=seed + 10 * bool(side)) for side in names}


SIZE = {"height": 64, "width": 64, "num_frames": 5}
FAMILIES = {
    "HunyuanVideo": Tried(
        hunyuan_video,
        lambda seed: embedded("")(seed)
        | {"pooled_prompt_embeds": random(1, 8), "prompt_attention_mask": padded(3 + seed)},
        SIZE, ("cond",), where="attn",
    ),
    "HunyuanVideo, two prompts": Tried(
        hunyuan_video,
        lambda seed: embedded("", "negative_")(seed)
        | {"pooled_prompt_embeds": random(1, 8), "prompt_attention_mask": padded(3 + seed),
           "negative_pooled_prompt_embeds": random(1, 8), "negative_prompt_attention_mask": padded(2)},
        SIZE | {"true_cfg_scale": 3.0}, told=True, where="attn",
    ),
    "HunyuanVideo 1.5": Tried(
        hunyuan_video_15,
        lambda seed: embedded("", "negative_")(seed)
        | {"prompt_embeds_mask": padded(3 + seed), "negative_prompt_embeds_mask": padded(2),
           "prompt_embeds_2": random(1, 3, 12), "prompt_embeds_mask_2": torch.ones(1, 3),
           "negative_prompt_embeds_2": random(1, 3, 12), "negative_prompt_embeds_mask_2": torch.zeros(1, 3)},
        SIZE, where="attn",
    ),
    "Mochi": Tried(
        mochi,
        lambda seed: embedded("", "negative_")(seed)
        | {"prompt_attention_mask": padded(3 + seed).bool(), "negative_prompt_attention_mask": padded(2).bool()},
        SIZE | {"num_frames": 7}, batches=False,
    ),
    "CogVideoX": Tried(cogvideox, embedded("", "negative_"), SIZE),
    "LTX-Video": Tried(
        ltx_video,
        lambda seed: embedded("", "negative_")(seed)
        | {"prompt_attention_mask": torch.ones(1, 6), "negative_prompt_attention_mask": torch.ones(1, 6)},
        {"height": 128, "width": 128, "num_frames": 9},
    ),
    "Cosmos Predict2": Tried(
        cosmos, embedded("", "negative_"),
        SIZE | {"num_frames": 9, "video": torch.zeros(1, 1, 3, 64, 64), "image": None}, noise=(4, 3, 8, 8),
    ),
}  # fmt: skip
over_families = pytest.mark.parametrize("tried", FAMILIES.values(), ids=FAMILIES)


class Seen(Interceptor):
    """Keeps each call, with copies of its tensors, and its output."""

    def begin(self, run):
        self.run, self.calls = run, []

    def __call__(self, call, proceed):
        output = proceed(call)
        q, k, v = (x.clone() for x in (call.q, call.k, call.v))
        self.calls.append((replace(call, q=q, k=k, v=v), output.clone()))
        return output


def plain(call: AttentionCall) -> torch.Tensor:
    """The attention of a call's grid, float64 (rows, heads, tokens, head_dim)."""
    k, v, bias = call.k.double(), call.v.double(), 0.0
    if call.joint is not None:
        _, k, v = (x.double() for x in call.joint.with_grid(call.q, call.k, call.v))
        bias = 0.0 if call.joint.bias is None else call.joint.bias.double()[:, None, None]
    return (call.q.double() @ k.mT / call.q.shape[-1] ** 0.5 + bias).softmax(-1) @ v


@over_families
def test_observing_changes_no_bit_and_shows_the_self_attention(tried):
    """The reference: what each layer's attention hands to its output projection."""
    stock, seen, given = tried.sample(), Seen(), []
    transformer = tried.pipe().transformer
    blocks = [*transformer.transformer_blocks, *getattr(transformer, "single_transformer_blocks", ())]

    def note(module, args, kwargs):
        given.append(args[0].clone())

    hooks = []
    for block in blocks:
        to_out = getattr(getattr(block, tried.where), "to_out", None)
        if to_out is not None:
            hooks.append(to_out[0].register_forward_pre_hook(note, with_kwargs=True))
    try:
        assert torch.equal(tried.sample(seen), stock)
    finally:
        for hook in hooks:
            hook.remove()
    assert stock.isfinite().all()
    assert seen.run.branches == tried.branches
    assert {row.branch for call, _ in seen.calls for row in call.site.rows} == set(tried.branches)
    assert {call.site.step for call, _ in seen.calls} == {0, 1}
    assert sorted({call.site.layer for call, _ in seen.calls}) == list(range(len(blocks)))
    assert seen.run.sigmas[0] > seen.run.sigmas[1]
    for call, output in seen.calls:
        assert call.q.shape[2] == seen.run.grid.tokens
        expected = plain(call)
        torch.testing.assert_close(call.of_grid(output).double(), expected, rtol=1e-3, atol=1e-5)
    tokens, start = seen.run.grid.tokens, max(call.joint.q_start if call.joint else 0 for call, _ in seen.calls)
    # A processor hands on the grid's tokens, or all of them.
    of_projection = [x[:, start : start + tokens] if x.shape[1] > tokens + start - 1 else x for x in given]
    shown = [
        call.of_grid(output).transpose(1, 2).flatten(2)
        for call, output in seen.calls
        if call.site.layer < len(transformer.transformer_blocks)
    ]
    joined = [torch.cat([x.flatten() for x in some]) for some in (of_projection, shown)]
    torch.testing.assert_close(*joined, rtol=1e-4, atol=1e-5)


@over_families
def test_a_recording_put_into_its_own_run_changes_nothing(tried):
    recorder = Recorder()
    stock = tried.sample(recorder)
    transfer = Transfer(recorder.take())
    assert torch.equal(tried.sample(transfer), stock)
    assert transfer.report.replaced == transfer.report.expected > 0


class ByHand(Interceptor):
    """Another run's queries and keys of the grid, call by call."""

    def __init__(self, calls):
        self.calls = iter(calls)

    def __call__(self, call, proceed):
        source, _ = next(self.calls)
        return proceed(replace(call, q=source.q, k=source.k))


@over_families
def test_a_transfer_is_other_queries_and_keys(tried):
    recorder, seen = Recorder(), Seen()
    tried.sample(recorder, seen, seeds=(2,))
    found = tried.sample(Transfer(recorder.take()))
    assert torch.equal(found, tried.sample(ByHand(seen.calls)))
    assert not torch.equal(found, tried.sample())


@over_families
def test_a_live_transfer_is_the_stored_one(tried):
    if not tried.batches:
        with pytest.raises(RuntimeError, match="one after the other"):
            tried.sample(LiveTransfer(), seeds=(2, 1))
        return
    recorder = Recorder()
    tried.sample(recorder, seeds=(2,))
    stored = tried.sample(Transfer(recorder.take()))
    live = tried.sample(LiveTransfer(), seeds=(2, 1))
    torch.testing.assert_close(live[1:], stored, rtol=1e-3, atol=1e-4 * float(stored.abs().max()))


@over_families
def test_structure_and_sinks_are_those_of_the_plain_map(tried):
    seen, structure, sinks = Seen(), MapObserver(), SinkObserver()
    tried.sample(seen, structure, sinks)
    assert len(structure.observed.calls) == len(sinks.record.calls) > 0
    for call, _ in seen.calls:
        for branch in {row.branch for row in call.site.rows}:
            rows = [i for i, row in enumerate(call.site.rows) if row.branch == branch]
            key = Key(Evaluation(call.site.sigma, call.site.visit), branch, call.site.layer)
            q, k = (x[rows].double() for x in (call.q, call.k))
            map_, frames = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1), call.site.run.grid.frames
            by_frame = map_.unflatten(3, (frames, -1)).unflatten(2, (frames, -1)).sum(-1).mean(3)
            found = structure.observed.calls[key].frames.value.double()
            torch.testing.assert_close(found, by_frame, rtol=1e-3, atol=1e-5)
            mass = sinks.record.calls[key].mass[:, 0].double()
            torch.testing.assert_close(mass, map_[0].mean(1).max(1).values, rtol=1e-3, atol=1e-5)


@over_families
def test_sparse_attention(tried):
    """All of the map is the stock result; half of it is what masking half of the plain map gives."""
    exact = {"minimum_tokens": 0, "dense_first": 0.0, "if_slower": "sparse"}
    stock = tried.sample()
    assert torch.equal(tried.sample(SparseAttention(SparseConfig("exact top-k", 1.0, **exact))), stock)
    seen = Seen()
    editor = SparseAttention(SparseConfig("exact top-k", 0.5, **exact))
    assert not torch.equal(tried.sample(editor, seen), stock)
    assert editor.report.why_dense is None
    for call, output in seen.calls[: seen.run.model.layers]:
        k, v, bias = call.k, call.v, 0.0
        tokens, start = call.q.shape[2], 0
        if call.joint is not None:
            _, k, v = call.joint.with_grid(call.q, call.k, call.v)
            start = call.joint.k_start
            bias = 0.0 if call.joint.bias is None else call.joint.bias.double()[:, None, None]
        scores = call.q.double() @ k.double().mT / call.q.shape[-1] ** 0.5 + bias
        weights = scores.softmax(-1)
        seen_keys = int((weights[0, 0, 0] > 0).sum())
        kept = weights >= weights.topk(max(1, round(0.5 * seen_keys)), dim=-1).values[..., -1:]
        kept[..., :start] = kept[..., start + tokens :] = True
        expected = scores.masked_fill(~kept, float("-inf")).softmax(-1) @ v.double()
        torch.testing.assert_close(call.of_grid(output).double(), expected, rtol=1e-3, atol=1e-4)


def test_a_prompt_that_was_not_announced_is_an_error():
    tried = replace(FAMILIES["HunyuanVideo, two prompts"], told=False)
    with pytest.raises(RuntimeError, match=r"the prompt 'uncond', and only cond was announced"):
        tried.sample(Seen())


def test_a_pipeline_is_left_as_it_was():
    tried = FAMILIES["CogVideoX"]
    tried.sample(Seen())
    for module in tried.pipe().transformer.transformer_blocks.modules():
        assert "forward" not in vars(module)


def test_attaching_twice_is_an_error():
    tried = FAMILIES["CogVideoX"]
    with attach(tried.pipe(), Seen()), pytest.raises(RuntimeError, match="attached already"):
        tried.sample(Seen())


def test_an_unknown_transformer_is_named():
    known = "Linear is not a transformer whose tokens this pack knows; it knows Wan"
    with pytest.raises(RuntimeError, match=known), attach(SimpleNamespace(transformer=torch.nn.Linear(1, 1))):
        pass
