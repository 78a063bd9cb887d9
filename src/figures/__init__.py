"""Pictures of a model as it learns: one file per model, with the same stem.

A file defines `pictures(module)`, which returns a list of `Picture`s for a LightningModule, each
with a name, a description, `title(view)` and `draw(axes, view)`: see
src/kindling/figures/picture.py. A model without a file gets the pictures for its `target`:
src/kindling/figures/classification.py for "class", regression.py for "value". This folder is
optional: without it, all models get those.
"""
