"""The `condu` command: the service, its client, and the quickstart."""
