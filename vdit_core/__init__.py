"""Seeing and steering attention inside video diffusion transformers.

The way of the data: a host (`hosts/`) turns each self-attention call of a sampling run into an
`call.AttentionCall` and sends it through a chain of interceptors; `record.Recorder` fills a `store.AttentionStore`,
`transfer.Transfer` and `transfer.LiveTransfer` put the source's attention map in the target's place.
"""
