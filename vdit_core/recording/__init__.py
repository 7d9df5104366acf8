"""Recording queries and keys: what is kept, at which precision, within which memory budget."""
