"""Their data, with the same stems."""
