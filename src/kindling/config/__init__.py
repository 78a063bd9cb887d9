"""Validation of configurations: keys, values, allowed targets, secrets."""
