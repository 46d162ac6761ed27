"""What messages call a store, and how they say that it can be mended."""

from __future__ import annotations

from attrs import frozen

__all__ = ["Words"]


@frozen
class Words:
    """What messages say of a store; `{folder}` in them becomes its folder.

    Args:
        noun: what it is called.
        elsewhere: how another folder is named.
        absent: what to do about an entry that is not there.
        damaged: what to do about an entry that is not as it was written.
        broken: what to do about an index that is damaged.
        again: what happens to entries that were lost.
    """

    noun: str = "store"
    elsewhere: str = "name another folder for it"
    absent: str = "make it again"
    damaged: str = "Remove the folder {folder}; what it held is made again when it is next needed"
    broken: str = "remove that file, and it is made again from the shards"
    again: str = "are made again when needed"
