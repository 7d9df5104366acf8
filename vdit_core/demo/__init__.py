"""The demo model at work: the paper's experiments on it, measured, with their pages."""
