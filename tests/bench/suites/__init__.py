"""The suites: their tasks, orders and options; what is missing is named."""
