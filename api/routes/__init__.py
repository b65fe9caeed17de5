"""A file a noun; each has the routes under it."""
