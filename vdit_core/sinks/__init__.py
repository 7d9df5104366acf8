"""Attention sinks: keys that take outsized mass from nearly all queries (section "Sinks" of arXiv 2504.10317).

`measure` finds the mass of each key, `observer` does so while a model samples, `record` holds what was measured.
`detect` finds the sinks in a record; `describe`, `pictures` and `page` show them. `control` takes them away, `ablation`
shows what that costs, `plant` makes sinks where there are none.
"""
