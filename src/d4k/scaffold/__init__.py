"""Plugins that do not exist yet: complete, small, and passing their own tests."""

from d4k.scaffold.write import KINDS, PIPELINES, write_plugin

__all__ = ["KINDS", "PIPELINES", "write_plugin"]
