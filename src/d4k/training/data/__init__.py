"""Samples and batches of a run."""
