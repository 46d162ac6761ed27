"""What a backbone plugin needs beside its model: loading and saving a diffusers pipeline, where its parts compute."""

from __future__ import annotations

from d4k.models import computing_device, load_pipeline, resident, save_pipeline

__all__ = ["computing_device", "load_pipeline", "resident", "save_pipeline"]
