"""The tiny Wan2.1 that ships with the pack: its files and settings, its vocabulary, its text encoder."""
