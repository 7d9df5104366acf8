"""Sparse attention: parts of the maps are left out (section "Sparsity" of arXiv 2504.10317).

`config` is what a user says, `sparse_attention` the editor. `tiling` and `tiled` put tokens into blocks, `patterns/`
choose blocks, `block_mask` holds the choice, `kernels/` compute it. `calibration` and `ablation` measure what a model
tolerates, `profile` keeps it, `allocation` spends a density by it, `quality` compares the videos.
`density_profile` is the other kind of profile, what each head needs; `presets/` has those of published models,
`density_table` reads such figures from others' files, `density_statistics` says what they depend on.
"""
