"""Errata: a hotfix channel for language models. Start with app/README.md."""

__version__ = "0.1.0"
