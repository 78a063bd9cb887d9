"""LightningModules, one file a model, each with a YAML of the same stem in conf/model/."""
