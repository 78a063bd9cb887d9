"""A package, so that test files of different folders may share their names."""
