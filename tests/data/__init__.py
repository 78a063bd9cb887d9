"""Tests of src/data/, one file a module."""
