"""Pretrain the two tiny checkpoints on the sample photographs, from nothing, with fixed seeds.

    python pretrain.py --work /tmp/pretrain --output ../src/d4k_tiny/checkpoints

Stages, each of which can be run alone: `text` (tokenizers and frozen random text encoders), `vae` (one autoencoder for
both), `decoder` (its decoder once more, the latents as they are), `sd3` and `flux` (the transformers), `publish`
(checkpoints with their model cards).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from autoencoder import train_decoder, train_vae
from card import publish
from denoisers import train_transformer
from text import train_text


def main() -> None:
    """Run the named stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="parts and curves")
    parser.add_argument("--output", type=Path, help="where `publish` puts the checkpoints")
    parser.add_argument("--stages", nargs="+", default=["text", "vae", "decoder", "sd3", "flux", "publish"])
    parser.add_argument("--vae-steps", type=int, default=3600)
    parser.add_argument("--decoder-steps", type=int, nargs=2, default=[1500, 700], help="in two cycles")
    parser.add_argument(
        "--sd3-steps", type=int, nargs="+", default=[2000, 350, 3300, 400], help="texts short and padded by turns"
    )
    parser.add_argument(
        "--flux-steps", type=int, nargs="+", default=[2000, 350, 3300, 400], help="texts short and padded by turns"
    )
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    stages = {
        "text": lambda: train_text(args.work),
        "vae": lambda: train_vae(args.work, args.vae_steps),
        "decoder": lambda: train_decoder(args.work, args.decoder_steps),
        "sd3": lambda: train_transformer(args.work, "sd3", args.sd3_steps),
        "flux": lambda: train_transformer(args.work, "flux", args.flux_steps),
        "publish": lambda: publish(args.work, args.output),
    }
    for stage in args.stages:
        stages[stage]()


if __name__ == "__main__":
    main()
