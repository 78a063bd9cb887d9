"""Pictures of a model as it learns: one file per model, with the model's own stem.

A file defines `pictures(module)`: a list of `Picture`s of src/kindling/figures/picture.py for a
LightningModule, with a name, a description, a `title(view)` and `draw(axes, view)` each. A model
without a file gets those of its `target`: classification.py ("class") or regression.py ("value") of
src/kindling/figures. This folder is optional: without it, all models get those.
"""
