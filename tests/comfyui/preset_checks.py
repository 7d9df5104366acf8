"""Which published profile fits ComfyUI's own Wan networks of real size, without weights. Started by test_host.py."""

from __future__ import annotations

import types

from inside import cases, host, report

# isort: split
import comfy.ops
import torch
from comfy.ldm.wan.model import WanModel
from pack.vdit_core.sparse import presets

_LARGE = {"dim": 5120, "num_heads": 40, "num_layers": 40}
_SMALL = {"dim": 1536, "num_heads": 12, "num_layers": 30}
#: As ComfyUI reads them from the checkpoints: size, type, channels; what fits, of a sampler that begins at level 1.
NETWORKS = {
    "1.3B T2V": (_SMALL, "t2v", 16, "Wan2.1 1.3B T2V"),
    "14B T2V": (_LARGE, "t2v", 16, "Wan2.1 14B T2V"),
    "Wan2.1 14B I2V": (_LARGE, "i2v", 36, "Wan2.1 14B I2V"),
    "Wan2.2 14B I2V": (_LARGE, "t2v", 36, "Wan2.2 A14B I2V high noise"),
    "5B": ({"dim": 3072, "num_heads": 24, "num_layers": 30}, "t2v", 48, None),
}


@cases(NETWORKS)
def check_the_profile_that_fits(size, kind, channels, name):
    with torch.device("meta"):
        network = WanModel(
            model_type=kind,
            in_dim=channels,
            out_dim=16,
            ffn_dim=64,
            text_dim=64,
            operations=comfy.ops.manual_cast,
            **size,
        )
    model = types.SimpleNamespace(model=types.SimpleNamespace(diffusion_model=network))
    found = presets.matching(host.signature(model), host.kind(model), (1.0, 0.95, 0.91))
    assert (None if found is None else found.name) == name


report(globals())
