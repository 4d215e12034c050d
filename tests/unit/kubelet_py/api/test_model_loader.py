"""Models load without the HTTP client they are shipped with: 4.5 MiB that the agent never uses."""

import subprocess
import sys

import pytest

from kubelet_py import api


def loaded_by(statement: str) -> set[str]:
    """The modules of a fresh process after the statement."""
    code = f"{statement}; import sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_the_models_come_alone() -> None:
    loaded = loaded_by("from kubelet_py.api import core_v1, codec, pod")
    assert "lightkube.models.core_v1" in loaded
    assert not loaded & {"httpx2", "yaml", "lightkube.core.client", "lightkube.resources", "kubelet_py.kube"}


def test_groups_load_when_they_are_asked_for() -> None:
    assert "lightkube.models.coordination_v1" not in loaded_by("import kubelet_py.api")
    assert "lightkube.models.coordination_v1" in loaded_by("from kubelet_py.api import coordination_v1")


def test_a_real_lightkube_that_is_there_already_stays() -> None:
    assert "lightkube.core.client" in loaded_by("import lightkube; from kubelet_py.api import core_v1")


def test_an_unknown_group_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense_v1'"):
        _ = api.nonsense_v1  # type: ignore[attr-defined] # that is the point
