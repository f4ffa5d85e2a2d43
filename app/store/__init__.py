"""Where the log lives: the truth about every edit, durable before it is acknowledged."""
