"""Scripts that made what ships with the quickstart; nothing of the service imports them."""
