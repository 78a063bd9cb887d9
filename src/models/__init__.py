"""LightningModules, one file per model, each with a YAML of the same stem in conf/model/."""
