"""The training loop and what it needs: strategies, checkpoints, summaries."""
