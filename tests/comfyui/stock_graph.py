"""Runs inside ComfyUI's Python: stock loaders, KSampler and VAE Decode on the demo model's files.

Arguments: the checkout, the weights folder, a file of contexts and noise (.safetensors), the result file, steps, cfg,
shift, seed.
"""

import sys

checkout, weights, given, result, steps, cfg, shift, seed = sys.argv[1:]
sys.argv = ["main.py"]
sys.path.insert(0, checkout)

from comfy.cli_args import args  # noqa: E402

args.cpu = True

import folder_paths  # noqa: E402
import torch  # noqa: E402
from comfy_extras.nodes_model_advanced import ModelSamplingSD3  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

import nodes  # noqa: E402

folder_paths.add_model_folder_path("diffusion_models", weights)
folder_paths.add_model_folder_path("vae", weights)
model = nodes.UNETLoader().load_unet("wan2.1_tiny_t2v_fp16.safetensors", "default")[0]
vae = nodes.VAELoader().load_vae("wan2.1_tiny_vae_fp16.safetensors")[0]
model = ModelSamplingSD3().patch(model, shift=float(shift))[0]
given = load_file(given)
positive, negative = ([[given[name], {}]] for name in ("positive", "negative"))
latent = {"samples": torch.zeros_like(given["noise"])}
with torch.inference_mode():
    samples = nodes.common_ksampler(
        model, int(seed), int(steps), float(cfg), "euler", "simple", positive, negative, latent
    )[0]
    frames = nodes.VAEDecode().decode(vae, samples)[0]
save_file({"samples": samples["samples"].contiguous(), "frames": frames.contiguous()}, result)
