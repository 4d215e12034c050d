"""Bringing the programs of this repository onto a machine. Not part of what is installed."""
