"""Studies: many runs that search for settings; optional, and nothing else depends on it."""
