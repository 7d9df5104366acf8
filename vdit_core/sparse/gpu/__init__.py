"""Triton kernels for the way to block-sparse attention: reordering tokens, choosing blocks. They know tensors only."""
