"""The lines of a pull, as Docker 20.10 sends them, and what counts as progress."""

from __future__ import annotations

from typing import Any

from dockershim.translate.pull_progress import PullProgress, PullWatch


def line(status: str, layer: str = "a", current: int = 0) -> dict[str, Any]:
    """One line."""
    return {"status": status, "id": layer, "progressDetail": {"current": current, "total": 100} if current else {}}


def marks(*lines: dict[str, Any]) -> list[int | None]:
    """The mark after each line; None where nothing moved."""
    watch = PullWatch()
    seen = [watch.feed(one) for one in lines]
    return [progress.mark if progress else None for progress in seen]


def test_bytes_and_steps_of_any_layer_count_and_repeated_lines_do_not() -> None:
    """The first line counts too."""
    assert marks(
        {"status": "Pulling from library/x", "id": "latest"},
        line("Pulling fs layer"),
        line("Downloading", current=10),
        line("Downloading", current=10),
        line("Downloading", "b", 5),
        line("Downloading", current=11),
    ) == [1, 2, 3, None, 4, 5]


def test_counting_down_to_another_attempt_is_no_progress() -> None:
    """The attempt itself is."""
    assert marks(
        line("Downloading", current=10),
        line("Retrying in 5 seconds"),
        line("Retrying in 4 seconds"),
        line("Waiting"),
        line("Downloading", current=10),
    ) == [1, None, None, None, 2]


def test_whose_turn_it_is() -> None:
    """While one layer is checked or extracted it is this machine's, whatever the others wait for."""
    watch = PullWatch()

    def local(status: str, layer: str, current: int = 0) -> bool:
        progress = watch.feed(line(status, layer, current))
        assert progress is not None
        return progress.local

    assert not local("Downloading", "a", 10)
    assert local("Verifying Checksum", "a")
    assert not local("Download complete", "a")
    assert local("Extracting", "a", 5)
    assert local("Downloading", "b", 5)
    assert not local("Pull complete", "a")


def test_the_text_names_the_layer() -> None:
    """For the error of a pull that stands still."""
    assert PullWatch().feed(line("Downloading", current=3)) == PullProgress(1, 1, "a: Downloading")
