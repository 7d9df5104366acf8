"""The example workflows that edit footage."""

from __future__ import annotations

from workflow_graph import Node, Workflow, files_of
from workflow_parts import SOURCE, TARGET, framed, negative_text, side_by_side

LOOK = (
    "**Left** the clip, **right** the edit: everything moves as before.\n\n"
    "The edit begins with the clip itself, so connect **latent** to the sampler, and a sampler that adds no noise "
    "(euler).\n\n**change**: how much may change; lower keeps more. **target_cfg**: more makes a stronger edit. "
    "**draws**: 2 or 4 make it cleaner and take that many times as long. **region**: a mask of where it may happen."
    "\n\nA change of season, light, colour or material works best. Where a thing shall become another thing, all maps "
    "hold its old shape: set change 1 and target_cfg 4, and take the heads that carry the camera alone, from "
    "Head Roles (demo model: Head Mask 6@0, 7@1)."
)


def _edited(
    flow: Workflow, model: Node, shifted: Node, vae: Node, clip: Node, prompts: list[Node], steps: int, fps: float,
    prefix: str, note: Node, loaders: list[Node], enlarge: int,
) -> Workflow:  # fmt: skip
    """The edit, from the loaders on."""
    source, target, negative = prompts
    noise = flow.add("RandomNoise", "Seed", "setting", noise_seed=1)
    euler = flow.add("KSamplerSelect", "A sampler that adds no noise", "setting", sampler_name="euler")
    sigmas = flow.add("BasicScheduler", "Steps", "setting", model=shifted.out(), scheduler="simple", steps=steps,
                      denoise=1.0)  # fmt: skip
    edit = flow.add("VDiT_EditFootage", model=shifted.out(), footage=clip.out(), vae=vae.out(2 if vae is model else 0),
                    source=source.out(), target=target.out(), negative=negative.out())  # fmt: skip
    sampler = flow.add("SamplerCustomAdvanced", noise=noise.out(), guider=edit.out(0), sampler=euler.out(),
                       sigmas=sigmas.out(), latent_image=edit.out(1))  # fmt: skip
    decoded = flow.add("VAEDecode", samples=sampler.out(), vae=vae.out(2 if vae is model else 0))
    parts = flow.add("GetVideoComponents", "The clip's frames", video=clip.out())
    result = side_by_side(flow, parts, decoded, fps, prefix, ("the clip", "the edit"), enlarge)
    flow.column(*loaders, note)
    flow.column(*prompts, noise, euler, sigmas)
    flow.column(edit, sampler, decoded, parts)
    flow.column(*result, width=430)
    flow.column(flow.note("What to look at", LOOK), width=420)
    return framed(flow, ("Clip and model", 0, 0), ("Prompts, seed, steps", 1, 1), ("The edit", 2, 2), ("Result", 3, 4))


def demo(number: int) -> Workflow:
    """The shipped clip and the demo model."""
    flow = Workflow(f"{number} Edit footage (demo model)")
    model = flow.add("VDiT_DemoModel")
    clip = flow.add("VDiT_DemoClip")
    prompts = [
        flow.add("CLIPTextEncode", title, look, clip=model.out(1), text=text)
        for title, look, text in (
            ("What the clip shows", "prompt", SOURCE),
            ("What it shall show", "prompt", TARGET),
            ("Negative prompt (empty)", "negative", ""),
        )
    ]
    note = flow.note(
        "Read me",
        "## One thing changed in a clip\n\nThe clip is not made by the model: it comes from outside. "
        "*Edit Footage* moves it by the difference of the two prompts, with the clip's own attention "
        "maps.\n\nPress **Run**. It takes about half a minute on two CPU cores, and on any model the "
        "time of two videos.\n\n## Change first\n\n**What it shall show**: A red car is driving on the "
        "highway. The demo model knows these words only:\na is driving running on in the · car truck "
        "dog · red blue yellow green white black brown · highway grass · winter",
    )
    return _edited(flow, model, model, model, clip, prompts, 30, 8, "vdit/edit", note, [model, clip], 3)


def wan21(number: int) -> Workflow:
    """A clip of yours and Wan2.1."""
    flow = Workflow(f"{number} Edit footage - Wan2.1 T2V 1.3B")
    names = ["wan2.1_t2v_1.3B_fp16.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors", "wan_2.1_vae.safetensors"]
    model = flow.add("UNETLoader", unet_name=names[0])
    shifted = flow.add("ModelSamplingSD3", model=model.out(), shift=8.0)
    text = flow.add("CLIPLoader", clip_name=names[1], type="wan")
    vae = flow.add("VAELoader", vae_name=names[2])
    clip = flow.add("LoadVideo", "Your clip", "setting")
    prompts = [
        flow.add("CLIPTextEncode", title, look, clip=text.out(), text=words)
        for title, look, words in (
            ("What the clip shows", "prompt", SOURCE),
            ("What it shall show", "prompt", TARGET),
            ("Negative prompt", "negative", negative_text()),
        )
    ]
    note = flow.note(
        "Read me",
        f"## Change one thing in a clip of yours\n\n{files_of(*names)}"
        "\n\nModels and shift are those of ComfyUI's own Wan2.1 template.\n\n**The clip**: sides of "
        "multiples of 8 px, such as 832 × 480, and 4 n + 1 frames, 81 at most; Wan was trained on 16 "
        "frames a second. Anything else is refused with the nearest that fits: *Resize Image* and *Get "
        "Image or Mask From Batch* cut it.\n\n**Describe the clip** as fully as you would prompt it, "
        "then change one thing in the same sentence.\n\nNobody has tuned guidance and change for "
        "Wan2.1 yet; the defaults are the demo model's best. If the edit is too weak, raise "
        "**target_cfg** to 4 to 6.\n\nThe picture of this workflow in the template list shows the demo "
        "model.",
    )
    loaders = [model, shifted, text, vae, clip]
    return _edited(flow, model, shifted, vae, clip, prompts, 30, 16, "vdit/wan21_edit", note, loaders, 1)
