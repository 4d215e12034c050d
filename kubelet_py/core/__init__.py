"""The rules of the node agent: pure functions and frozen values.

Nothing here does I/O, reads a clock, logs or knows asyncio: time, ids, randomness and configuration are arguments.
What may be decided is decided here; `sync/` and `managers/` look, ask and act.
"""
