"""Tensors to bytes and back: a file a kind of artefact, all in one container."""
