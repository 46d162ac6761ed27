"""Numbers for everything random, from (seed, purpose, number of the sample) and never from a running state."""

from __future__ import annotations

import hashlib

__all__ = ["numbered_seed"]


def numbered_seed(seed: int, purpose: str, number: int) -> int:
    """The seed of one random choice in a run: resuming, prefetching and other world sizes cannot change it.

    Args:
        seed: of the run.
        purpose: what is chosen, such as "noise" or "crop", so that two purposes never share numbers.
        number: of the sample, the batch or the epoch.

    Returns:
        A whole number below 2**56.

    >>> numbered_seed(0, "noise", 1) == numbered_seed(0, "noise", 1) != numbered_seed(0, "crop", 1)
    True
    """
    digest = hashlib.blake2b(f"{seed}/{purpose}/{number}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")
