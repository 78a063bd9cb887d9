"""Compare runs and report on them; see README.md."""
