"""Footage: a clip from outside, edited under its own attention maps."""
