"""The lab: real container engines and Kubernetes control planes in seconds, isolated from machine and each other.

Start with `tests.lab.lab.Lab`; README.md tells how. Nothing here may be imported by the programs under test.
"""
