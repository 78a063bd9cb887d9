"""A training run from its first line to its last, and how it resumes; see README.md."""
