"""Several optimizer steps per call of the Trainer, and the compiled step; see README.md."""
