"""The HTTP API: translates requests into domain values, and domain values into JSON. Independent of model and log."""
