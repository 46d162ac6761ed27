"""A benchmark: models are sampled, their pictures are measured, and what was done is written down."""
