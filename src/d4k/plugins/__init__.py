"""Plugins: the hooks they implement, what they registered, and how they are found."""

from d4k.plugins.discovery import create, discover, registry
from d4k.plugins.hookspecs import API_VERSION, Register, RegisterCheckpoint, hookimpl
from d4k.plugins.registry import Entry, Kind, Registry, build

__all__ = [
    "API_VERSION",
    "Entry",
    "Kind",
    "Register",
    "RegisterCheckpoint",
    "Registry",
    "build",
    "create",
    "discover",
    "hookimpl",
    "registry",
]
