"""Tests of the pictures: what they say is what independent computations say."""
