"""What holds for every unit test."""

from hypothesis import settings

# A machine that is busy with something else is no finding: examples have no deadline, pytest's timeout guards the rest.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
