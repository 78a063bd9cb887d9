"""Loggers that a resumed run can continue, and trackers; see README.md."""
