"""Block-sparse attention anywhere torch runs: the keys of each list are gathered, then scaled_dot_product_attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..block_mask import BlockMask
from ..tiled import Tiled

_BYTES = 64 * 2**20  # of gathered keys and values at once


class Gathered:
    """Any device, dtype and width."""

    name = "gathered blocks"
    int8 = False

    def refuses(self, q: Tensor) -> str | None:
        return None

    def __call__(self, call: Tiled, mask: BlockMask, sharpness: Tensor) -> Tensor:
        tiles, (rows, heads, _, dim) = call.tiles, call.q.shape
        most, device = mask.kv_indices.shape[-1], call.q.device
        q = (call.q * sharpness[..., None, None].to(call.q.dtype)).unflatten(2, (-1, tiles.queries))
        blocks, counts = (x.expand(rows, heads, *x.shape[2:]) for x in (mask.kv_indices, mask.kv_num_blocks))
        row = torch.arange(rows, device=device)[:, None, None, None]
        head = torch.arange(heads, device=device)[:, None, None]
        lanes, listed = torch.arange(tiles.keys, device=device), torch.arange(most, device=device)
        one = rows * heads * most * tiles.keys * (dim + call.v.shape[-1]) * call.k.element_size()
        outputs = []
        for some in torch.arange(tiles.query_blocks).split(max(1, _BYTES // one)):
            part = slice(int(some[0]), int(some[-1]) + 1)
            places = blocks[:, :, part, :, None].long() * tiles.keys + lanes
            seen = (places < tiles.grid.tokens) & (listed < counts[:, :, part, None])[..., None]
            keys, values = (x[row, head, places.flatten(3)] for x in (call.k, call.v))
            keys_seen = seen.flatten(3)[..., None, :]
            outputs.append(F.scaled_dot_product_attention(q[:, :, part], keys, values, attn_mask=keys_seen))
        return call.back(torch.cat(outputs, dim=2).flatten(2, 3))
