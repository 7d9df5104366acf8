"""The example workflow that transfers the heads of one role."""

from __future__ import annotations

from typing import Any

from workflow_graph import Node, Workflow
from workflow_parts import SOURCE, framed

from vdit_core.tiny_wan.captions import Caption

READ = (
    "## Keep the camera, free the object\n\nA transfer of all heads keeps everything: of a dog in the car's place a "
    "smear is left. **Head Roles** finds the heads whose attention moves with the camera, and a transfer of these "
    "alone keeps the camera and leaves the dog whole.\n\nPress **Run**. It takes about a minute on two CPU cores."
    "\n\n## Change first\n\n**preset** of Head Roles: *motion only*, *layout only*.\n\n**Target prompt**: A truck is "
    "driving on the highway.\n\nThe demo model knows these words only:\na is driving running on in the · car truck dog "
    "· red blue yellow green white black brown · highway grass · winter"
)
LOOK = (
    "From left: the **source**; the dog with the **camera heads** of the source; with **all heads**; and **alone**.\n\n"
    "The picture shows what each head looks at; the preset's heads are framed."
)


def demo(number: int) -> Workflow:
    """The demo model: a dog under the camera of a car."""
    flow = Workflow(f"{number} Head roles (demo model)")
    model = flow.add("VDiT_DemoModel")
    source, target, negative = (
        flow.add("CLIPTextEncode", title, look, clip=model.out(1), text=text)
        for title, look, text in (
            ("Source prompt", "prompt", SOURCE),
            ("Target prompt", "prompt", str(Caption("dog", place="grass"))),
            ("Negative prompt (empty)", "negative", ""),
        )
    )
    size = flow.add("EmptyHunyuanLatentVideo", "Size and length", "setting", width=128, height=128, length=17)
    seed = flow.add("PrimitiveInt", "Seed", "setting", value=1)
    record = flow.add("VDiT_RecordAttention", model=model.out())

    def sample(title: str, patched: Any, prompt: Node) -> Node:
        return flow.add("KSampler", title, model=patched, positive=prompt.out(), negative=negative.out(),
                        latent_image=size.out(), seed=seed.out(), steps=30, cfg=5.0, sampler_name="euler",
                        scheduler="simple", denoise=1.0)  # fmt: skip

    first = sample("KSampler: source", record.out(0), source)
    finish = flow.add("VDiT_FinishRecording", recorder=record.out(1), latent=first.out())
    roles = flow.add("VDiT_HeadRoles", store=finish.out(0), steps="0-29/3")
    shown = flow.add("PreviewImage", "What each head looks at", images=roles.out(1))
    table = flow.add("PreviewAny", "Table", source=roles.out(2))
    some = flow.add("VDiT_TransferAttention", "Transfer Attention: camera heads", model=model.out(),
                    store=finish.out(0), mask=roles.out(0))  # fmt: skip
    every = flow.add("VDiT_TransferAttention", "Transfer Attention: all heads", model=model.out(), store=finish.out(0))
    others = [
        sample("KSampler: camera heads", some.out(), target),
        sample("KSampler: all heads", every.out(), target),
        sample("KSampler: alone", model.out(), target),
    ]
    latents = [finish.out(1), *(one.out() for one in others)]
    decoded = [flow.add("VAEDecode", samples=latent, vae=model.out(2)) for latent in latents]
    both = flow.add(
        "VDiT_SideBySide",
        **{name: one.out() for name, one in zip(("first", "second", "third", "fourth"), decoded, strict=True)},
        labels="source\nwith its camera heads\nwith all its heads\nprompt alone",
        enlarge=3,
    )
    video = flow.add("CreateVideo", images=both.out(), fps=8.0)
    save = flow.add("SaveVideo", video=video.out(), filename_prefix="vdit/heads")
    flow.column(model, flow.note("Read me", READ))
    flow.column(source, target, negative, size, seed)
    flow.column(record, first, finish)
    flow.column(roles, table, width=640)
    table.size[1] = 1340  # as Markdown, a row for each of 18 heads
    flow.column(shown, some, every, width=520)
    flow.column(*others)
    flow.column(*decoded)
    flow.column(both, video, save, flow.note("What to look at", LOOK), width=620)
    groups = ("Prompts, size, seed", "1  Source: recorded", "2  What each head looks at", "3  Heads to transfer")
    return framed(flow, *((title, n, n) for n, title in enumerate(groups, 1)), ("4  Three targets", 5, 6),
                  ("Result", 7, 7))  # fmt: skip
