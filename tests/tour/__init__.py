"""A package, so that test files here may share their names with those of other folders."""
