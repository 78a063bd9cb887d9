"""LightningDataModules, one file per data set, each with a YAML of the same stem in conf/data/."""
