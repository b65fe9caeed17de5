"""Backups: the rows of the catalog and the blobs they need, in a folder or a bucket, and back again."""
