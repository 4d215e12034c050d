"""What the documents say of the tree is so."""

import re
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[3]
NAMED_TEST = re.compile(r"`(\S+\.py)::(?:(\w+)::)?(test_\w+)`")
FOLDERS = (TREE / "tests", TREE / "tests/integration/dockershim")
"""Where the tables of the README look for their tests."""
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/dockershim.md", "tests/lab/README.md"]


@pytest.mark.parametrize("document", ["README.md", "docs/dockershim.md"])
def test_every_test_that_is_named_is_there(document: str) -> None:
    """A difference from others is only claimed where a test holds it."""
    named = NAMED_TEST.findall((TREE / document).read_text())
    assert len(named) > 10
    for path, cls, name in named:
        (file,) = (folder / path for folder in FOLDERS if (folder / path).is_file())
        text = file.read_text()
        assert f"def {name}(" in text, f"{path} has no {name}"
        assert not cls or f"class {cls}" in text, f"{path} has no {cls}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    """Relative ones, to files of the tree."""
    for target in LINK.findall((TREE / document).read_text()):
        assert (TREE / document).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_every_make_target_that_is_named_is_there(document: str) -> None:
    """And listed by `make`."""
    targets = set(re.findall(r"^([\w-]+):.*## ", (TREE / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", (TREE / document).read_text())) <= targets


def test_every_row_beside_other_shims_names_a_test() -> None:
    """But for the table of counts, which one test holds as a whole."""
    text, _, _ = (TREE / "docs/dockershim.md").read_text().partition("## Calls to Docker")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.endswith("| test |")]
    assert len(rows) > 40
    assert [row for row in rows if not NAMED_TEST.search(row.rsplit("|", 2)[1])] == []
