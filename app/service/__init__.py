"""The use cases in domain words: generate, edit, roll back, look up. Knows nothing of HTTP, and reads no settings."""
