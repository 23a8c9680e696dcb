"""Weights and checkpoints on disk: their formats and atomic writes."""
