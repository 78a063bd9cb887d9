"""Long tests of what a run survives: `make soak`, minutes each; `make test` has short forms."""
