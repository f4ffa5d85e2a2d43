"""The folder that is on the path of vLLM's Python, and nothing else of Errata is."""
