"""What the project costs, beside what could be used instead: `make bench`."""
