"""What holds for every unit test."""

from hypothesis import HealthCheck, Phase, settings

# A machine that is busy with something else is no finding: examples have no deadline, pytest's timeout guards the rest.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")

# `make mutants` runs a test thousands of times: fewer examples can only miss more mutants, never catch one by accident,
# and neither can a slow machine or what an earlier mutant's examples were.
settings.register_profile(
    "mutation",
    deadline=None,
    max_examples=10,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
