"""Pixels to latents and back through any diffusers `AutoencoderKL`: exact, and within the memory there is."""

from d4k.autoencoder.exact import decode, encode, footprint, own_downscale, posterior
from d4k.autoencoder.posterior import Posterior

__all__ = ["Posterior", "decode", "encode", "footprint", "own_downscale", "posterior"]
