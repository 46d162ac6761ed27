"""CLIPScore, LAION aesthetics and human-preference scores for d4k (Diffusion-4K)."""
