"""FID, KID, precision, recall, FD-DINOv2 and patch-FID for d4k (Diffusion-4K)."""
