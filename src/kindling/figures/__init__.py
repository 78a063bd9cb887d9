"""Pictures for any model. Optional: without this folder, runs draw nothing."""
