"""Recording queries and keys: what is kept, at which quantization, within which memory budget."""
