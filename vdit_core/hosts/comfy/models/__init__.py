"""The networks whose tokens are known: one file a model family."""
