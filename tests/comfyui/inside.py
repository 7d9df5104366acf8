"""What the checks share that run inside ComfyUI's Python: its real classes on the CPU, the pack, the demo model.

A script of checks is started with two arguments, ComfyUI's checkout and the pack's folder. `report` runs its functions
check_…, each once or once for every row of its tables, and prints one line of JSON: for each case "ok", "absent: …", or
what went wrong.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from typing import Any

checkout, pack_folder = sys.argv[1:]
sys.argv = ["main.py"]
sys.path.insert(0, checkout)

import utils.extra_config  # noqa: E402, F401 - as main.py does, before another package of that name
from comfy.cli_args import args  # noqa: E402

args.cpu = True

import comfy.ldm.wan.model as wan  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402

spec = importlib.util.spec_from_file_location(
    "pack", f"{pack_folder}/__init__.py", submodule_search_locations=[pack_folder]
)
sys.modules["pack"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["pack"])

from pack.vdit_core.call import Interceptor  # noqa: E402
from pack.vdit_core.hosts import comfy as host  # noqa: E402
from pack.vdit_core.hosts.comfy import demo as comfy_demo  # noqa: E402
from pack.vdit_core.tiny_wan.files import TRANSFORMER, WEIGHTS  # noqa: E402

STEPS, CALLS = 3, 9 * 3 * 2
MODEL, CLIP, VAE = comfy_demo.load()


def shallow(layers: int = 4):
    """The demo model's first layers, for checks that run it many times."""
    weights, metadata = comfy.utils.load_torch_file(str(WEIGHTS / TRANSFORMER), return_metadata=True)
    beyond = tuple(f"blocks.{layer}." for layer in range(layers, 9))
    kept = {name: value for name, value in weights.items() if not name.startswith(beyond)}
    model = comfy.sd.load_diffusion_model_state_dict(kept, metadata=metadata)
    model.add_object_patch("model_sampling", MODEL.get_model_object("model_sampling"))
    return model


def prompt(text: str) -> list:
    return CLIP.encode_from_tokens_scheduled(CLIP.tokenize(text))


SOURCE, TARGET, NOTHING = (
    prompt(t) for t in ("A car is driving on the highway", "A red car is driving on the highway", "")
)


def sample(
    model,
    positive=SOURCE,
    negative=NOTHING,
    videos=1,
    size=(16, 5, 16, 16),
    cfg=5.0,
    sampler="euler",
    steps=STEPS,
    scheduler="simple",
    latent=None,
    noise=None,
    **more,
):
    """Latents of some videos from one noise. latent: what they are made of, nothing if None."""
    if noise is None:
        noise = torch.randn((1, *size), generator=torch.Generator().manual_seed(7)).repeat(videos, 1, 1, 1, 1)
    latent = torch.zeros_like(noise) if latent is None else latent
    return comfy.sample.sample(
        model, noise, steps, cfg, sampler, scheduler, positive, negative, latent, disable_pbar=True,
        **({"seed": 7} | more),
    )  # fmt: skip


#: A grid of 2 x 4 x 4 tokens, where the size does not matter and there are many runs.
SMALL = (16, 2, 8, 8)
#: The shortest run that has a step behind the first.
SHORT: dict[str, Any] = {"size": SMALL, "steps": 2}


def both_prompts() -> list:
    """Source and target as one batch."""
    return [[torch.cat([SOURCE[0][0], TARGET[0][0]]), {}]]


def raised_by(function, *arguments, **options):
    """The exception of a call, without its frames and those of what led to it, or None."""
    try:
        function(*arguments, **options)
    except BaseException as error:
        cause = error
        while cause is not None:
            cause = cause.with_traceback(None).__context__
        return error


class Watch(Interceptor):
    """Notes every call and changes nothing."""

    def __init__(self) -> None:
        self.calls, self.runs, self.ends = [], [], []

    def begin(self, run):
        self.runs.append(run)

    def __call__(self, call, proceed):
        self.calls.append(call.site)
        return proceed(call)

    def end(self, completed):
        self.ends.append(completed)


def watched(model, **options):
    """A run under observation: what it saw, what it gave, how it ended."""
    watch, outcomes = Watch(), []
    samples = sample(host.attach(model, watch, outcomes.append), **options)
    return watch, samples, outcomes[0]


def tiny(kind=wan.WanModel, **changes):
    """A small model of another Wan class, with random weights, loaded as ComfyUI loads a file."""
    config = {"model_type": "t2v", "in_dim": 16, "out_dim": 16, "dim": 128, "ffn_dim": 64, "num_heads": 1,
              "num_layers": 2, "text_dim": 4096, "operations": comfy.ops.disable_weight_init}  # fmt: skip
    network = kind(**config | changes, dtype=torch.float32, device="cpu")
    torch.manual_seed(0)
    weights = {name: 0.02 * torch.randn(x.shape) for name, x in network.state_dict().items()}
    return comfy.sd.load_diffusion_model_state_dict(weights)


def text(width=4096, length=6):
    return [[torch.randn(1, length, width, generator=torch.Generator().manual_seed(1)), {}]]


class Absent(Exception):
    """What a case needs is not in this ComfyUI."""


def cases(*tables: dict[str, Any]):
    """Run a check with the values of every row of a table, or of every combination of rows; a tuple is several values.

    test_host.py reads the rows' names from the file, so a table is a dictionary written out at its top.
    """

    def with_rows(check: Callable):
        check.rows = {
            ", ".join(name for name, _ in rows): [
                value for _, values in rows for value in (values if isinstance(values, tuple) else (values,))
            ]
            for rows in product(*(table.items() for table in tables))
        }
        return check

    return with_rows


def _cases_of(names: dict[str, Any]) -> Iterator[tuple[str, Callable, list]]:
    """Name, check and arguments of every case among a script's names."""
    for name, check in names.items():
        if name.startswith("check_"):
            for row, values in getattr(check, "rows", {"": []}).items():
                yield ": ".join(filter(None, (name.removeprefix("check_"), row))), check, values


def report(names: dict[str, Any], around: Callable[[], AbstractContextManager] = nullcontext) -> None:
    """Run the checks among a script's names, each within `around`."""
    results = {}
    with torch.inference_mode():
        for name, check, values in _cases_of(names):
            try:
                with around():
                    check(*values)
                results[name] = "ok"
            except Absent as absent:
                results[name] = f"absent: {absent}"
            except BaseException:
                results[name] = traceback.format_exc()[-1500:]
    print(json.dumps(results))
