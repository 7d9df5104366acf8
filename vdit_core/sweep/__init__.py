"""Sweeps: one target sampled under many masks, to see which layers or heads carry the source's structure (section
"Structure" of arXiv 2504.10317), and which serve a goal.

`plan` says which videos there are, `groups` which heads a row has, `run` samples them through a host's callable,
`checkpoint` keeps what is finished, `ray_runner` spreads batches over a Ray cluster, `scores` measures, `pictures`
draws. `goal` says what is wanted, `search` finds the groups for it, `found` and `search_pictures` report. Nothing here
knows a host.
"""
