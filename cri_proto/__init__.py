"""The contract between the node agent and its runtime: CRI v1 messages, stubs and wire formats.

Both programs of this repository import it; it imports neither of them.
"""
