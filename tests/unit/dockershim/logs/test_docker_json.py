"""Docker's entries become CRI lines, the same bytes however the file is cut, also where dockerd died while it wrote."""

from hypothesis import given
from hypothesis import strategies as st

from dockershim.logs.docker_json import translate, translate_line
from tests.unit.dockershim.logs.docker_lines import Line, cri, docker

characters = st.characters(blacklist_categories=["Cs"], blacklist_characters="\n")
bodies = st.text(characters, max_size=30) | st.sampled_from(['{"log":"', '"', "\\", "é\u2028", "x\r", ""])
entries = st.builds(
    Line,
    st.builds(str.__add__, bodies, st.sampled_from(["\n", "\n", "\n", "\r\n", ""])),
    st.sampled_from(["stdout", "stderr"]),
    st.integers(0, 10**6),
)
garbage = st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"") + b"\n")


@given(st.lists(entries, max_size=20))
def test_each_entry_becomes_its_line(lines: list[Line]) -> None:
    assert translate(docker(lines)) == cri(lines)


@given(st.lists(entries.map(Line.docker) | garbage, max_size=20), st.data())
def test_the_translation_does_not_depend_on_the_chunks(lines: list[bytes], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(lines)))
    whole = translate(b"".join(lines))
    assert translate(b"".join(lines[:cut])) + translate(b"".join(lines[cut:])) == whole
    assert b"".join(translate_line(line.removesuffix(b"\n")) for line in lines) == whole


@given(entries, entries, st.data())
def test_an_entry_after_a_torn_one_is_never_lost(torn: Line, after: Line, data: st.DataObject) -> None:
    written = torn.docker()[: data.draw(st.integers(1, len(torn.docker()) - 1))]
    translation = translate(written + after.docker())
    assert translation.endswith(after.cri())


def test_the_text_of_a_torn_entry_is_kept_with_the_time_of_the_next() -> None:
    after = Line("next\n", "stdout", 7)
    torn = Line("torn\n", "stderr", 6).docker()
    assert translate(torn[:-20] + after.docker()) == f"{after.time} stderr F torn\n".encode() + after.cri()
    assert translate(torn[:10] + after.docker()) == f"{after.time} stdout F to\n".encode() + after.cri()


def test_entries_glued_together_are_two() -> None:
    one, two = Line("a\n", number=1), Line("b\n", number=2)
    assert translate(one.docker().removesuffix(b"\n") + two.docker()) == cri([one, two])


def test_zeros_that_a_power_cut_left_do_not_hide_the_entry_behind_them() -> None:
    line = Line("a\n", number=1)
    assert translate(b"\0" * 100 + line.docker()) == line.cri()


def test_labels_and_other_keys_are_no_part_of_the_log() -> None:
    assert translate(b'{"log":"a\\n","stream":"stderr","attrs":{"k":"v"},"time":"T"}\n') == b"T stderr F a\n"


def test_a_file_that_is_no_log_gives_nothing() -> None:
    assert translate(b'\n[1]\nnull\n{"log":5}\n{"log":"\\ud800\\n","time":"T"}\n') == b""
