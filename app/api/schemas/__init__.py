"""The wire's shapes. What comes in is refused if it is not exactly as described; what goes out names every field."""
