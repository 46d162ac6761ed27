"""Near duplicates: pictures that show the same, whatever was done to one of them on the way."""

from d4k.datasets.duplicates.fingerprint import Fingerprint, fingerprint
from d4k.datasets.duplicates.groups import groups

__all__ = ["Fingerprint", "fingerprint", "groups"]
