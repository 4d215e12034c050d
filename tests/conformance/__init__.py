"""Upstream's own suites against our programs: `make conformance`. What may fail is listed with its reason."""
