"""Pictures of a model as it learns: one file a model, with the stem that the model has.

A file defines `pictures(view)`, a list of them. A model without a file gets those of its target:
classification.py ("class") or regression.py ("value").
"""
