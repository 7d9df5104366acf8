"""Trains the demo model from nothing: the synthetic world, its pictures, and one file for each stage."""
