"""The store against a plain transcription of the method's formulas, on real fine-tuned checkpoints."""
