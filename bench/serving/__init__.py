"""The service measured: against its peers, and every answer against the offline one."""
