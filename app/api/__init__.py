"""The HTTP API: requests become domain values, domain values become JSON. Knows no model and no log."""
