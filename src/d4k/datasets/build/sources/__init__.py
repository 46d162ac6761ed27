"""Where pictures come from: folders, tables of paths or URLs, and datasets on the Hub."""

from d4k.datasets.build.sources.listing import Listing, list_sources

__all__ = ["Listing", "list_sources"]
