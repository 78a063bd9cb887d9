"""Serve: a trained model behind HTTP on this machine."""
