"""The checkpoint store: bases, unified deltas, triggers and experts as tensors and bytes."""
