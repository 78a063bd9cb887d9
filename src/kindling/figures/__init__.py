"""Pictures for any model. This folder is optional: without it, runs draw no pictures."""
