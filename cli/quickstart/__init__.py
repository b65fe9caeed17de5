"""`condu quickstart`: the main job once, on real images, told as it happens; everything over HTTP."""
