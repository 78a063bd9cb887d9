"""Callbacks, one idea a file; conf/callbacks/ says which are on."""
