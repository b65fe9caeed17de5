"""From an uploaded archive to pictures that a model can learn from."""
