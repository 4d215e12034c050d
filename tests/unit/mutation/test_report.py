"""The score is that of all mutants that were tried, and nothing that lives is left out of it."""

from tests.mutation.__main__ import read_outcomes, survivors, table

RESULTS = """
    kubelet_py.core.dns.x_parse__mutmut_1: killed
    kubelet_py.core.dns.x_parse__mutmut_2: survived
    kubelet_py.core.dns.x_parse__mutmut_3: no tests
    kubelet_py.core.dns.x_other__mutmut_1: timeout
    kubelet_py.core.qos.xǁQosǁclass_of__mutmut_1: killed
    kubelet_py.core.qos.xǁQosǁclass_of__mutmut_2: not checked
""".splitlines()


def test_the_table_counts_what_was_tried() -> None:
    lines, percent = table(read_outcomes(RESULTS))
    assert lines[2:] == [
        "| dns | 4 | 2 | 50.0 % |",
        "| qos | 1 | 1 | 100.0 % |",
        "| all | 5 | 3 | 60.0 % |",
    ]
    assert percent == 60.0


def test_what_lives_is_named_by_its_function() -> None:
    assert survivors(read_outcomes(RESULTS)) == ["   2 alive in kubelet_py.core.dns.x_parse"]


def test_nothing_tried_is_no_success() -> None:
    assert table({})[1] == 0.0
