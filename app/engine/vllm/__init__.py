"""The second engine: vLLM generates, in a process of its own, and this server decides, fits and answers.

`process` speaks to that process, `engine` is the engine over it, `inside/` is what runs there.
"""
