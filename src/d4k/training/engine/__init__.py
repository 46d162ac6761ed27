"""How the denoiser of a run is wrapped, differentiated and gathered: one file a way to share it between processes."""

from d4k.training.engine.context import check_context
from d4k.training.engine.make import make_engine
from d4k.training.engine.single import Engine

__all__ = ["Engine", "check_context", "make_engine"]
