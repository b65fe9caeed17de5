"""Fusion kinds: pure mathematics on flat buffers, one file a kind, one contract."""
