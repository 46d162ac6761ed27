"""Captioned pictures that the core itself can read."""

from d4k.datasets.folder import FolderDataset

__all__ = ["FolderDataset"]
