"""The kinds of jobs, a file a kind; what they share is in `learning`."""
