"""What an entry is known by: a digest of everything that its values depend on.

Whatever could change the values of an entry is in its key. So a change never finds an old entry, and whoever finds an
entry may use it, whichever run, folder or name it was made for.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from attrs import frozen

__all__ = ["BYTES", "FORMAT", "Group", "digest"]

FORMAT = 1
"""Of keys and entries: raised when an entry of an older d4k must not be found any more."""

BYTES = 16
"""Of a digest."""


@frozen
class Group:
    """What entries of one kind have in common; a shard holds entries of one group.

    Args:
        kind: such as "latent", "text" or "rows".
        model: digest of what made them.
        dtype: of the stored numbers, such as "bfloat16".
    """

    kind: str
    model: str
    dtype: str


def digest(*values: Any) -> str:
    """A digest of plain values, as hexadecimal digits; floats count with all their digits.

    >>> digest(1, "a") == digest(1, "a") != digest("1", "a")
    True
    """
    content = json.dumps(values, sort_keys=True, ensure_ascii=True, default=repr)
    return hashlib.blake2b(content.encode(), digest_size=BYTES).hexdigest()
