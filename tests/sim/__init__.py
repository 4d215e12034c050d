"""A model of a runtime, and random histories of pods in it."""
