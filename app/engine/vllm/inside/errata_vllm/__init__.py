"""The part of Errata that runs inside vLLM's own Python environment. It imports torch, vLLM and nothing else of Errata.

vLLM pins versions of transformers and FastAPI that Errata cannot run with, so that both cannot share an environment.
"""
