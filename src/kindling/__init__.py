"""The engine: updated as a whole, never edited in a project that uses it."""
