"""Benchmarks: the store against its peers, in one run on one machine."""
