"""The one place that knows CLIP: architectures, preprocessing, features, experts, prediction."""
