"""The demo model as its node hands it out, beside what stock loaders make of its files. Started by test_host.py."""

from __future__ import annotations

import inside
from inside import VAE, comfy_demo

# isort: split
import comfy.sd
import comfy.utils
import torch


def stock_vae():
    return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(comfy_demo.WEIGHTS / comfy_demo.VAE)))


def check_the_vae_decodes_as_the_stock_one():
    """It only convolves by another library on a CPU."""
    latents = torch.randn((1, 16, 3, 8, 12), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(VAE.decode(latents), stock_vae().decode(latents), rtol=0, atol=1e-4)


def check_the_vae_encodes_as_the_stock_one():
    frames = torch.rand((9, 64, 96, 3), generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(VAE.encode(frames), stock_vae().encode(frames), rtol=0, atol=1e-4)


inside.report(globals())
