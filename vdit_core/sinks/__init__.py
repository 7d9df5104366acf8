"""Attention sinks: keys that take outsized mass from nearly all queries (section "Sinks" of arXiv 2504.10317).

`received` measures, `observe` does so while a model samples, `record` keeps what was measured, `detect` finds sinks,
`control` takes them away, `plant` makes them, `words` and `pictures` tell.
"""
