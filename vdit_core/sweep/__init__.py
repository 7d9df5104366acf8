"""The layer sweep: one target sampled under many layer masks, to see which layers carry the source's structure (section
"Structure" of arXiv 2504.10317).

`plan` says which videos there are, `run` samples them through a host's callable, `folder` keeps what is finished,
`workers` spreads batches over a Ray cluster, `scores` measures, `pictures` draws. Nothing here knows a host.
"""
