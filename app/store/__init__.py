"""Storage of the log: the source of truth about every edit, durable before an edit is acknowledged."""
