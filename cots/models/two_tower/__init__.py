"""Two-tower checkpoints, CLIP and SigLIP, as OpenAI, open_clip and transformers store them."""
