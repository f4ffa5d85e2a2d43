"""The engine: one thread owns the frozen model, its slots and the adaptors. Knows nothing of logs or HTTP.

Read in this order: sequence, scheduler, kv_cache, runner, engine (the step), owner (the thread and its mailbox).
"""
