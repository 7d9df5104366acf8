"""Text beside the grid: what an attention call makes of whole sequences, against the plain map in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vdit_core.attention.text_share import text_share
from vdit_core.call import AttentionCall, Chain, ModelSignature, Row, Run, Site, TokenGrid
from vdit_core.joint_tokens import JointTokens, key_bias
from vdit_core.sparse.block_mask import with_dense_queries
from vdit_core.sparse.config import SparseConfig
from vdit_core.sparse.patterns import PATTERNS
from vdit_core.sparse.patterns.always import always, placeless
from vdit_core.sparse.sparse_attention import SparseAttention
from vdit_core.sparse.tiled import tile
from vdit_core.sparse.tiling import tiles

GRID, TEXT = TokenGrid(4, 6, 8), 10
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def plain(q, k, v, bias=None, kept=None):
    scores = q.double() @ k.double().mT / q.shape[-1] ** 0.5
    if bias is not None:
        scores = scores + bias.double()
    return (scores if kept is None else scores.masked_fill(~kept, float("-inf"))).softmax(-1) @ v.double()


def joint_call(first: int, bias=None, grid=GRID, text=TEXT, dim=16, device="cpu", dtype=torch.float32):
    """A call of two rows whose text stands before, behind, or on both sides of the grid."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(3, 2, 2, grid.tokens + text, dim, generator=generator).to(device, dtype)
    joint = JointTokens(*whole, first, first, grid.tokens, bias)
    rows = (Row("cond", 0), Row("uncond", 0))
    run = Run(ModelSignature(1, 2, dim), grid, (1.0,), ("cond", "uncond"), 1, dtype, joint=True)

    def backend(q, k, v):
        return plain(q, k, v, None if bias is None else bias[:, None, None]).to(q.dtype)

    return AttentionCall(Site(run, 0, 0, 1.0, 0, rows), *joint.of_grid(), backend, joint=joint)


@pytest.mark.parametrize("first", [0, 4, TEXT])
def test_what_nobody_changed_is_not_copied(first):
    call, seen = joint_call(first), []
    replace(call, backend=lambda *qkv: seen.append(qkv) or qkv[2]).dense()
    joint = call.joint
    assert all(given is whole for given, whole in zip(seen[0], (joint.q, joint.k, joint.v), strict=True))


@pytest.mark.parametrize("first", [0, 4, TEXT])
def test_only_the_grids_tokens_are_replaced(first):
    call = joint_call(first)
    other = torch.randn_like(call.q)
    output = replace(call, q=other).dense()
    q = call.joint.q.clone()
    q[:, :, first : first + GRID.tokens] = other
    expected = plain(q, call.joint.k, call.joint.v)
    torch.testing.assert_close(output.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(call.of_grid(output).double(), expected[:, :, first : first + GRID.tokens])


def test_a_part_of_the_rows_has_their_masks():
    bias = torch.zeros(2, GRID.tokens + TEXT)
    bias[1, -3:] = torch.finfo(torch.float32).min
    call = joint_call(0, bias)
    part = call.rows(slice(1, 2))
    assert part.site.rows == (Row("uncond", 0),)
    assert torch.equal(part.joint.left_out(), bias[1:] < -1)
    assert torch.equal(part.q, call.q[1:])


@pytest.mark.parametrize("masked", [False, True])
def test_an_editors_bias_is_of_the_grids_keys(masked):
    bias = torch.zeros(2, GRID.tokens + TEXT)
    bias[1, -3:] = torch.finfo(torch.float32).min
    call = joint_call(4, bias if masked else None)
    of_grid = torch.randn(2, GRID.tokens)
    output = replace(call, bias=of_grid).dense()
    wanted = torch.zeros(2, 2, 1, GRID.tokens + TEXT)
    wanted[:, :, 0, 4 : 4 + GRID.tokens] = of_grid
    expected = plain(call.joint.q, call.joint.k, call.joint.v, wanted + bias[:, None, None] * masked)
    torch.testing.assert_close(output.double(), expected, rtol=1e-4, atol=1e-4)


def test_a_mask_that_weighs_keys_leaves_none_out():
    bias = torch.zeros(2, GRID.tokens + TEXT)
    bias[:, -3:] = -0.7
    assert joint_call(0, bias).joint.left_out() is None


LOWEST = torch.finfo(torch.float32).min
SEEN = torch.tensor([[True, True, False, True]])


@pytest.mark.parametrize(
    ("mask", "bias"),
    [
        (SEEN[None, None], [[0, 0, LOWEST, 0]] * 2),
        (SEEN, [[0, 0, LOWEST, 0]] * 2),
        (torch.stack([SEEN, ~SEEN]), [[0, 0, LOWEST, 0], [LOWEST, LOWEST, 0, LOWEST]]),
        (torch.tensor([[[0.0, -0.5, 0, 1]]]), [[0, -0.5, 0, 1]] * 2),
        ((SEEN.mT & SEEN)[None, None], [[0, 0, LOWEST, 0]] * 2),  # a query that sees nothing says nothing
    ],
)
def test_a_mask_is_a_bias_of_keys(mask, bias):
    assert torch.equal(key_bias(mask, 2, 4), torch.tensor(bias, dtype=torch.float32))


@pytest.mark.parametrize(
    "mask", [torch.eye(4).bool()[None, None], torch.eye(4)[None, None], torch.stack([SEEN, ~SEEN])[None]]
)
def test_a_mask_that_differs_between_queries_or_heads_is_refused(mask):
    with pytest.raises(ValueError, match="differs between heads or queries"):
        key_bias(mask, 2, 4)


def test_the_share_of_text_is_that_of_the_plain_map():
    bias = torch.zeros(2, GRID.tokens + TEXT)
    bias[1, :2] = torch.finfo(torch.float32).min
    call = joint_call(TEXT, bias)
    whole = call.joint.q.double() @ call.joint.k.double().mT / 16**0.5 + bias[:, None, None].double()
    expected = whole.softmax(-1)[:, :, TEXT:, :TEXT].sum(-1).mean(-1)
    found = text_share(call.q, call.k, call.joint, [0, 1], [1])
    torch.testing.assert_close(found.double(), expected[:, 1:], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("first", [0, 300])
@pytest.mark.parametrize("masked", [False, True])
def test_sparse_attention_keeps_text_whole(device, first, masked):
    """Against a table of what every query looks at; on a GPU by the kernels, in bfloat16."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    grid, text, dim = TokenGrid(5, 16, 20), 300, 64
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    bias = None
    if masked:
        bias = torch.zeros(2, grid.tokens + text, device=device)
        padding = slice(0, 40) if first else slice(-40, None)
        bias[:, padding] = torch.finfo(torch.float32).min
    call = joint_call(first, bias, grid, text, dim, device, dtype)
    config = SparseConfig("block top-k", 0.3, minimum_tokens=0, dense_first=0.0, if_slower="sparse")
    editor = SparseAttention(config)
    editor.begin(call.site.run)
    found = Chain([editor])(call)
    seen = torch.ones(grid.tokens + text, dtype=torch.bool, device=device) if bias is None else bias[0] == 0
    q, k, v = (x[:, :, seen] for x in (call.joint.q, call.joint.k, call.joint.v))
    before, all_seen = int(seen[:first].sum()), int(seen.sum())
    wide = replace(grid, prefix=before, suffix=all_seen - grid.tokens - before)
    plan = tiles(wide, q.device)
    mask = PATTERNS["block top-k"](
        tile(q, k, v, plan), torch.full((2,), 0.3), always(plan, False), torch.ones(2, device=device)
    )
    table = with_dense_queries(mask, placeless(plan), plan.key_blocks).to_dense(plan.key_blocks)
    place = torch.empty(all_seen, dtype=torch.long, device=device)
    place[plan.permutation.long()] = torch.arange(all_seen, device=device)
    kept = table[:, :, place // plan.queries][..., place // plan.keys]
    of_text = torch.ones(all_seen, dtype=torch.bool, device=device)
    of_text[before : before + grid.tokens] = False
    assert bool(kept[..., of_text].all()), "no text column is left out"
    assert bool(kept[:, :, of_text].all()), "no text row is left out"
    assert float(kept.double().mean()) < 0.8
    near = {"rtol": 1e-3, "atol": 1e-4} if device == "cpu" else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(found[:, :, seen].double(), plain(q, k, v, kept=kept), **near)
