"""The storage tree that docker-registry serves, and the password file of the private one."""

from __future__ import annotations

import pytest

from tests.lab.registry import bcrypt, repository_of


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("registry.k8s.io/pause:3.10", ("pause", "3.10")),
        ("registry.k8s.io/e2e-test-images/busybox:1.29-2", ("e2e-test-images/busybox", "1.29-2")),
        ("host.invalid:5000/a/b:c", ("a/b", "c")),
    ],
)
def test_a_reference_is_split_below_its_host(reference: str, expected: tuple[str, str]) -> None:
    assert repository_of(reference) == expected


def test_passwords_are_hashed_as_docker_registry_wants_them() -> None:
    assert bcrypt("secret").startswith("$2b$04$")
    assert bcrypt("secret") != bcrypt("other")
