"""Recorded attention: what is kept of it, where, and as which file."""

from .attention_store import SAME_LEVEL, AttentionStore
from .schema import Evaluation, Header, Key, StoreError, StoreFileError

__all__ = ["SAME_LEVEL", "AttentionStore", "Evaluation", "Header", "Key", "StoreError", "StoreFileError"]
