"""Any number of images answered into a file, without a server."""
