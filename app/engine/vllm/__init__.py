"""The second engine: vLLM generates, in a process of its own, and this server decides, fits and answers.

`session` is the seam to one life of a vLLM, `process` one that this server starts, `attached` one that runs already.
`supervisor` has it again after a death, `engine` is the engine over it, and `inside/` is what runs in vLLM's
environment.
"""
