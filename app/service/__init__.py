"""The use cases in domain words: generate, edit, roll back, look up. Independent of HTTP and of settings."""
