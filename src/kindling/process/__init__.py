"""The process itself: signals, output streams, memory, random numbers, ranks, devices."""
