"""The parts of the scripts beside this folder: packages, pictures and captions, training, measurement."""
