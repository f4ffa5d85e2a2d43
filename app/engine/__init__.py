"""The engine: one thread owns the frozen model, its slots and the editors. It knows nothing of logs or HTTP.

Reading order: sequence, scheduler, kv_cache, runner, engine (the step), owner (the thread and its mailbox).
"""
