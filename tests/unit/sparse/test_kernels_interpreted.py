"""The block kernel without a GPU: interpreted, and compiled for GPUs of all kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
from triton_interpreter import needs_triton, run


@needs_triton
def test_the_kernel_computes_the_masked_map():
    run(Path(__file__).with_name("interpreted_kernel_checks.py"))


@needs_triton
@pytest.mark.parametrize("capability", [80, 89, 90, 120])
@pytest.mark.parametrize("int8", [False, True], ids=["half", "int8"])
def test_it_compiles_for(capability, int8):
    """With its own options, within the shared memory of the smallest GPU of that kind; nothing spills to speak of."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from vdit_core.sparse.kernels import triton_blocks

    own = "*i8" if int8 else "*bf16"
    types = {"q_ptr": own, "k_ptr": own, "k_tiles": own, "v_ptr": "*bf16", "v_tiles": "*bf16", "out_ptr": "*bf16"}
    types |= dict.fromkeys(("permutation_ptr", "order_ptr", "blocks_ptr", "counts_ptr"), "*i32")
    names = triton_blocks._attend.arg_names
    whole = {name: types.get(name, "*fp32" if name.endswith("_ptr") else "i32") for name in names}
    signature = {name: "constexpr" if name.isupper() else kind for name, kind in whole.items()}
    shared = {80: 163, 89: 99, 90: 227, 120: 99}[capability] * 1024
    options = triton_blocks.tuned(capability // 10, shared, int8, safe=True, dim=128, keys=64) | {"TMA": False}
    fixed = {"DIM": 128, "QUERIES": 128, "KEYS": 64, "PARTS": 8, "INT8": int8, "WHICH": 1, "TMA": options.pop("TMA")}
    source = ASTSource(
        fn=triton_blocks._attend,
        signature=signature,
        constexprs=fixed | {"STAGES": options.pop("STAGES")},
        attrs={(n,): [["tt.divisibility", 16]] for n, name in enumerate(names) if "*" in whole[name]},
    )
    found = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert found.metadata.shared <= shared
    assert found.asm["cubin"]
