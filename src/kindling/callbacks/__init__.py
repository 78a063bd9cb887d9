"""Callbacks, one idea per file; conf/callbacks/ enables them."""
