"""Writes the example workflows that are not edited by hand: python tools/workflows.py [NUMBER ...].

A ComfyUI with this pack must run at port 8188: it tells the inputs and outputs of every node. $COMFYUI_PATH, or else
~/comfy/ComfyUI, has the templates. Of models whose weights are not shipped, loaders, samplers, steps and sizes are
those of ComfyUI's own templates.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path
from typing import Any

import footage_workflows
import head_role_workflow
from official_template import folder
from template_workflows import TEMPLATES
from workflow_graph import NODES, Node, Workflow
from workflow_parts import (
    FOLDER,
    begun,
    framed,
    guided,
    one_video_each,
    prompts,
    read_me,
    recorded,
    side_by_side,
)


def vace(number: int) -> Workflow:
    """VACE with a reference."""
    flow = Workflow(f"{number} Live transfer - Wan2.1 VACE 1.3B")
    model = flow.add("UNETLoader", unet_name="wan2.1_vace_1.3B_fp16.safetensors")
    shifted = flow.add("ModelSamplingSD3", model=model.out(), shift=8.0)
    clip = flow.add("CLIPLoader", clip_name="umt5_xxl_fp8_e4m3fn_scaled.safetensors", type="wan")
    vae = flow.add("VAELoader", vae_name="wan_2.1_vae.safetensors")
    source, target, negative = prompts(flow, clip)
    reference = flow.add("LoadImage", "Reference of both videos", "setting", image="example.png")
    first, second = begun(
        flow,
        "WanVaceToVideo",
        source,
        target,
        negative=negative.out(),
        vae=vae.out(),
        reference_image=reference.out(),
        width=832,
        height=480,
        length=49,
        strength=1.0,
    )
    mask = flow.add("VDiT_LayerMask", mask="main all")
    live = flow.add("VDiT_LiveTransfer", model=shifted.out(), source=first.out(0), target=second.out(0),
                    latent=first.out(2), mask=mask.out())  # fmt: skip
    sampler = flow.add("KSampler", model=live.out(0), positive=live.out(1), negative=first.out(1),
                       latent_image=live.out(2), seed=1, steps=20, cfg=6.0, sampler_name="uni_pc", scheduler="simple",
                       denoise=1.0)  # fmt: skip
    trimmed = flow.add("TrimVideoLatent", "Without the reference", samples=sampler.out(), trim_amount=first.out(3))
    picked, decoded = one_video_each(flow, trimmed, vae)
    result = side_by_side(flow, *decoded, 16, "vdit/vace_live")
    note = read_me(
        flow,
        "VACE: the reference, the control and the attention",
        ["wan2.1_vace_1.3B_fp16.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "wan_2.1_vae.safetensors"],
        "Sampler and shift are those of ComfyUI's own VACE template, without its CausVid LoRA: 20 steps at cfg 6."
        "\n\n**First choose a picture** in Load Image, or leave it out."
        "\n\nThe mask's **main all** leaves VACE's own blocks alone; **all** takes them too, and **vace all** only "
        "these.\n\nConnect a control video to both *WanVaceToVideo* alike, if you have one.",
    )
    flow.column(model, shifted, clip, vae, note)
    flow.column(source, target, negative, reference)
    flow.column(first, second, mask)
    flow.column(live, sampler, trimmed)
    flow.column(*picked, *decoded)
    flow.column(*result, width=430)
    return framed(flow, ("Prompts, reference, layers", 1, 2), ("Both in one batch", 3, 3), ("Result", 4, 5))


def hunyuan(number: int) -> Workflow:
    """A recorded source and its target: prompts of several lengths cannot be one batch here."""
    flow = Workflow(f"{number} Transfer - HunyuanVideo 1.5")
    model = flow.add("UNETLoader", unet_name="hunyuanvideo1.5_720p_t2v_fp16.safetensors")
    shifted = flow.add("ModelSamplingSD3", model=model.out(), shift=7.0)
    clip = flow.add("DualCLIPLoader", clip_name1="qwen_2.5_vl_7b_fp8_scaled.safetensors",
                    clip_name2="byt5_small_glyphxl_fp16.safetensors", type="hunyuan_video_15")  # fmt: skip
    vae = flow.add("VAELoader", vae_name="hunyuanvideo15_vae_fp16.safetensors")
    source, target, negative = prompts(flow, clip)
    negative.values["text"] = ""
    size = flow.add("EmptyHunyuanVideo15Latent", "Size and length", "setting", width=848, height=480, length=81)
    noise = flow.add("RandomNoise", "Seed of both", "setting", noise_seed=1)
    euler = flow.add("KSamplerSelect", sampler_name="euler")
    sigmas = flow.add("BasicScheduler", model=shifted.out(), scheduler="simple", steps=20, denoise=1.0)

    def sample(name: str, patched: Any, prompt: Any) -> tuple[list[Node], Any]:
        return guided(flow, name, patched, prompt, negative.out(), 6.0, noise=noise.out(), sampler=euler.out(),
                      sigmas=sigmas.out(), latent_image=size.out())  # fmt: skip

    first, second, latents = recorded(flow, shifted.out(), "0-53/9", "0%-50%", sample, (source.out(), target.out()))
    decoded = [flow.add("VAEDecode", name, samples=latent, vae=vae.out())
               for name, latent in zip(("source", "target"), latents, strict=True)]  # fmt: skip
    result = side_by_side(flow, *decoded, 24, "vdit/hunyuan15")
    note = read_me(
        flow,
        "A joint model: the target's prompt still speaks",
        [
            "hunyuanvideo1.5_720p_t2v_fp16.safetensors",
            "qwen_2.5_vl_7b_fp8_scaled.safetensors",
            "byt5_small_glyphxl_fp16.safetensors",
            "hunyuanvideo15_vae_fp16.safetensors",
        ],
        "Sampler, steps, shift and guidance are those of ComfyUI's own HunyuanVideo 1.5 template, the size is "
        "smaller.\n\nHere text and video attend together. Only the video's queries and keys are recorded and replaced; "
        "the prompt's own stay.\n\nSix of 54 layers in half the steps as int8 are 8 GiB. Nobody has looked for this "
        "model's structure layers yet.",
    )
    flow.column(model, shifted, clip, vae, note)
    flow.column(source, target, negative, size, noise, euler, sigmas)
    flow.column(*first)
    flow.column(*second)
    flow.column(*decoded)
    flow.column(*result, width=430)
    return framed(flow, ("Prompts, size, seed", 1, 1), ("Source: recorded", 2, 2), ("Target: with its attention", 3, 3),
                  ("Result", 4, 5))  # fmt: skip


def ltx_2(number: int) -> Workflow:
    """A recorded source and its target, of video and audio."""
    flow = Workflow(f"{number} Transfer - LTX-2")
    checkpoint = "ltx-2-19b-dev-fp8.safetensors"
    model = flow.add("CheckpointLoaderSimple", ckpt_name=checkpoint)
    clip = flow.add("LTXAVTextEncoderLoader", text_encoder="gemma_3_12B_it_fp4_mixed.safetensors", ckpt_name=checkpoint)
    audio_vae = flow.add("LTXVAudioVAELoader", ckpt_name=checkpoint)
    source, target, negative = prompts(flow, clip)
    negative.values["text"] = "blurry, low quality, still frame, watermark, subtitles"
    video = flow.add("EmptyLTXVLatentVideo", "Size and length", "setting", width=768, height=512, length=97)
    audio = flow.add("LTXVEmptyLatentAudio", "Audio: the same length", "setting", audio_vae=audio_vae.out(),
                     frames_number=97, frame_rate=25)  # fmt: skip
    both = flow.add("LTXVConcatAVLatent", video_latent=video.out(), audio_latent=audio.out())
    noise = flow.add("RandomNoise", "Seed of both", "setting", noise_seed=1)
    euler = flow.add("KSamplerSelect", sampler_name="euler")
    sigmas = flow.add("LTXVScheduler", latent=both.out(), steps=20, max_shift=2.05, base_shift=0.95, stretch=True,
                      terminal=0.1)  # fmt: skip

    def sample(name: str, patched: Any, prompt: Any) -> tuple[list[Node], Any]:
        paced = flow.add(
            "LTXVConditioning", f"{name}: frame rate", positive=prompt, negative=negative.out(), frame_rate=25.0
        )
        nodes, latent = guided(flow, name, patched, paced.out(0), paced.out(1), 4.0, noise=noise.out(),
                               sampler=euler.out(), sigmas=sigmas.out(), latent_image=both.out())  # fmt: skip
        return [paced, *nodes], latent

    first, second, latents = recorded(flow, model.out(), "0-47/3", "0%-50%", sample, (source.out(), target.out()))
    apart = [flow.add("LTXVSeparateAVLatent", f"{name} without audio", av_latent=latent)
             for name, latent in zip(("source", "target"), latents, strict=True)]  # fmt: skip
    decoded = [flow.add("VAEDecode", samples=one.out(0), vae=model.out(2)) for one in apart]
    result = side_by_side(flow, *decoded, 25, "vdit/ltx2")
    note = read_me(
        flow,
        "Video and audio: the video's attention is what is transferred",
        [checkpoint, "gemma_3_12B_it_fp4_mixed.safetensors"],
        "Steps and schedule are those of the first stage of ComfyUI's own LTX-2 template, with the sampler euler "
        "instead of euler_ancestral, and without its upscaling.\n\nSixteen of 48 layers in half the steps as int8 are "
        "6 GiB. The audio is left alone, and not decoded here.\n\nNobody has looked for this model's structure layers "
        "yet.",
    )
    flow.column(model, clip, audio_vae, note)
    flow.column(source, target, negative, video, audio, both, noise)
    flow.column(euler, sigmas, *first)
    flow.column(*second)
    flow.column(*apart, *decoded)
    flow.column(*result, width=430)
    return framed(flow, ("Prompts, size, seed", 1, 1), ("Source: recorded", 2, 2), ("Target: with its attention", 3, 3),
                  ("Result", 4, 5))  # fmt: skip


WORKFLOWS = {
    17: vace,
    18: hunyuan,
    19: ltx_2,
    20: footage_workflows.demo,
    21: footage_workflows.wan21,
    23: head_role_workflow.demo,
}


def main() -> None:
    """Write them."""
    with urllib.request.urlopen("http://127.0.0.1:8188/object_info", timeout=60) as answer:
        NODES.update(json.load(answer))
    templates = folder(Path(os.environ.get("COMFYUI_PATH", "~/comfy/ComfyUI")).expanduser())
    for number in map(int, sys.argv[1:]) if len(sys.argv) > 1 else (*TEMPLATES, *WORKFLOWS):
        if number in TEMPLATES:
            name, template, changed = TEMPLATES[number]
            flow = changed(templates / f"{template}.json", f"{number} {name}")
        else:
            flow = WORKFLOWS[number](number)
        path = FOLDER / f"{flow.name}.json"
        path.write_text(json.dumps(flow.as_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(path.name)


if __name__ == "__main__":
    main()
