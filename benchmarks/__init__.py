"""What training, data and inference cost on this machine: `python -m benchmarks.train_step`, `.data`, `.inference`."""
