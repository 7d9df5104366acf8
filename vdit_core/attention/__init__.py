"""The maths of attention maps, written once: plain and exact, several values under one map, GPU kernels."""
