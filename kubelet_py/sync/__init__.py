"""Brings what runs on the node to what is assigned to it: sources, the loop, one worker per pod, the runtime's steps.

Everything here acts; what to do is decided in `core`.
"""
