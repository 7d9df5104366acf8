"""The examples made of ComfyUI's templates run: the demo model stands where their models are loaded."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from PIL import Image

from vdit_core.tiny_wan.captions import Caption

from .test_examples import EXAMPLES, number, open_example

SOURCE, TARGET = str(Caption("car")), str(Caption("car", season="winter"))
#: Inputs of the loaders, by the class: what of the demo model stands for them. Nothing: they are left out.
STAND_IN = {"UNETLoader": ["demo", 0], "CLIPLoader": ["demo", 1], "VAELoader": ["demo", 2], "CLIPVisionLoader": None,
            "CLIPVisionEncode": None, "LoadImage": ["picture", 0]}  # fmt: skip
PICTURE = {"class_type": "EmptyImage", "inputs": {"width": 128, "height": 128, "batch_size": 1, "color": 0x5080B0}}
EXPERTS = ("14", "15")
#: The templates' steps, and the one where the experts change, with the LoRA off: fewer.
STEPS = {20: 6, 10: 3}


def with_the_demo_model(prompt: dict[str, Any]) -> dict[str, Any]:
    """The prompt at the demo model's size and with few steps; a LoRA's loader hands its model on."""
    kinds = {id_: node["class_type"] for id_, node in prompt.items()}

    def instead(value: Any) -> Any:
        while isinstance(value, list) and kinds.get(value[0]) == "LoraLoaderModelOnly":
            value = prompt[value[0]]["inputs"]["model"]
        return STAND_IN.get(kinds[value[0]], value) if isinstance(value, list) else value

    made: dict[str, Any] = {"demo": {"class_type": "VDiT_DemoModel", "inputs": {}}, "picture": PICTURE}
    for id_, node in prompt.items():
        if node["class_type"] in (*STAND_IN, "LoraLoaderModelOnly"):
            continue
        inputs = {name: instead(value) for name, value in node["inputs"].items()}
        inputs = {name: value for name, value in inputs.items() if value is not None}
        inputs |= {name: 128 for name in ("width", "height") if name in inputs}
        inputs |= {"length": 17} if "width" in inputs else {}
        made[id_] = {"class_type": node["class_type"], "inputs": inputs}
        if node["class_type"] == "Wan22ImageToVideoLatent":  # its latents have 48 channels: another VAE
            made[id_] = {"class_type": "EmptyHunyuanLatentVideo", "inputs": inputs}
            del inputs["vae"]
        if node["class_type"] == "CLIPTextEncode" and inputs["text"] != SOURCE:  # the target's words, or none of them
            inputs["text"] = TARGET if inputs["text"].startswith(SOURCE) else ""
        if node["class_type"] == "PrimitiveInt":
            inputs["value"] = STEPS.get(inputs["value"], inputs["value"])
        if node["class_type"] == "KSampler":
            inputs["steps"] = 3
    return made


@pytest.fixture
def prompt_of(page_of):
    """The prompt that the page makes of an example, with the switch of its LoRA off or on."""

    def made(example: str, switch: bool = False) -> dict[str, Any]:
        comfy = page_of("canvas")
        comfy.empty()
        open_example(comfy, next(name for name in EXAMPLES if number(name) == example))
        prompt = comfy.js("async () => (await app.graphToPrompt()).output")
        for node in prompt.values():
            if node["class_type"] == "PrimitiveBoolean":
                node["inputs"]["value"] = switch
        return with_the_demo_model(prompt)

    return made


def sampled(prompt: dict[str, Any]) -> dict[str, Any]:
    """The frames that the template's Create Video gets are saved as pictures, too."""
    (video,) = (node for node in prompt.values() if node["class_type"] == "CreateVideo")
    save = {"images": video["inputs"]["images"], "filename_prefix": "templates/frame"}
    return prompt | {"frames": {"class_type": "SaveImage", "inputs": save}}


@pytest.mark.parametrize(
    ("example", "switch", "calls"),
    [("3", False, 54), ("16", False, 54), ("22", False, 54), ("14", False, 108), ("14", True, 36), ("15", False, 108),
     ("15", True, 36)],
)  # fmt: skip
def test_live_transfer_replaces_every_call(server, prompt_of, example, switch, calls):
    """9 layers x steps x 2 prompts (at cfg 1 there is one), and both videos are shown beside each other."""
    found = server.run(sampled(prompt_of(example, switch)))
    told = [re.findall(r"replaced (\d+) of (\d+) calls", text) for text in found.reports().values()]
    runs = [run for each in told for run in each]
    assert len(runs) == (2 if example in EXPERTS else 1)
    assert all(done == wanted for done, wanted in runs)
    assert sum(int(done) for done, _ in runs) == calls
    files = sorted((server.base / "output" / "templates").glob("frame_*.png"))[-17:]
    assert len(files) == 17
    with Image.open(files[-1]) as frame:
        assert frame.width == 2 * 128 + 8


@pytest.mark.parametrize(("example", "runs"), [("24", 1), ("25", 2)])
def test_sparse_attention_acts_in_every_sampler(server, prompt_of, example, runs):
    prompt = prompt_of(example)
    for node in prompt.values():
        if node["class_type"] == "VDiT_SparseAttention":  # the demo model has few tokens, and no published profile
            node["inputs"] |= {"minimum_tokens": 0, "if_slower": "sparse", "preset": "none", "dense_first": 0}
    found = server.run(prompt)
    told = " ".join(found.reports().values())
    assert len(re.findall(r"computed \d+% of all maps", told)) == runs, told


def test_no_prompt_of_a_template_is_lost(page_of):
    """The fields of the subgraph's node reach both text encoders."""
    for example in EXPERTS:
        comfy = page_of("canvas")
        comfy.empty()
        open_example(comfy, next(name for name in EXAMPLES if number(name) == example))
        prompt = comfy.js("async () => (await app.graphToPrompt()).output")
        texts = [node["inputs"]["text"] for node in prompt.values() if node["class_type"] == "CLIPTextEncode"]
        assert len(texts) == 3
        assert [text for text in texts if text == SOURCE], json.dumps(texts)
        assert [text for text in texts if text.startswith(SOURCE) and text != SOURCE]
