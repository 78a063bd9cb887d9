"""`make bench`: what the project costs, compared with what could be used instead."""
