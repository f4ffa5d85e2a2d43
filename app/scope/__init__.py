"""Scope: which live edit a question asks for. Knows texts, and no editor, engine or log."""
