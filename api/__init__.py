"""The HTTP face: routes, errors, and the parts they are made of."""
