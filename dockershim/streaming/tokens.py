"""Streaming tokens."""
