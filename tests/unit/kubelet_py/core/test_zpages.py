"""What /statusz and /flagz say."""

from datetime import UTC, datetime, timedelta, timezone

from kubelet_py.core import zpages

STARTED = datetime(2026, 11, 8, 21, 12, 13, tzinfo=timezone(timedelta(hours=1), "CET"))
NOW = datetime(2026, 11, 9, 21, 14, 18, tzinfo=UTC)
FACTS = zpages.ProcessFacts(STARTED, "v1.37.2", "3.11.2", ("/configz", "/healthz"))
OLD, NEW = zpages.STATUSZ_KINDS
HEADER = (
    "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees "
    "and is for debugging purposes only.\n"
)


def test_the_object_of_statusz() -> None:
    assert zpages.statusz_object(NEW, "kubelet", FACTS, NOW) == {
        "kind": "Statusz",
        "apiVersion": "config.k8s.io/v1beta1",
        "metadata": {"name": "kubelet"},
        "startTime": "2026-11-08T20:12:13Z",
        "uptimeSeconds": 25 * 3600 + 125,
        "goVersion": "",
        "binaryVersion": "1.37.2",
        "emulationVersion": "1.37",
        "paths": ["/configz", "/healthz"],
    }


def test_the_text_of_statusz() -> None:
    assert zpages.statusz_text("kubelet", FACTS, NOW, "=") == (
        f"\nkubelet statusz\n{HEADER}\n"
        "Started= Sun Nov  8 21:12:13 CET 2026\n"
        "Up= 25 hr 02 min 05 sec\n"
        "Python version= 3.11.2\n"
        "Binary version= 1.37.2\n"
        "Emulation version= 1.37\n"
        "Paths= /configz /healthz\n"
    )


def test_a_clock_that_was_set_back_makes_no_negative_uptime() -> None:
    assert FACTS.uptime_seconds(STARTED - timedelta(hours=1)) == 0


def test_flags_are_sorted_in_both_forms() -> None:
    flags = {"v": "2", "address": "::"}
    assert zpages.flagz_object(zpages.FLAGZ_KINDS[0], "kubelet", flags) == {
        "kind": "Flagz",
        "apiVersion": "config.k8s.io/v1alpha1",
        "metadata": {"name": "kubelet"},
        "flags": {"address": "::", "v": "2"},
    }
    assert zpages.flagz_text("kubelet", flags, ": ") == f"\nkubelet flagz\n{HEADER}address: ::\nv: 2\n"


def test_who_asks_for_the_old_version_is_warned() -> None:
    assert zpages.deprecation_warning(NEW, "statusz") is None
    assert zpages.deprecation_warning(OLD, "flagz") == (
        '299 - "This version of the flagz endpoint is deprecated. Please use a newer version."'
    )


def test_who_takes_no_form_is_told_which_there_are() -> None:
    assert zpages.not_acceptable_status(("a/b", "c/d")) == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "only the following media types are accepted: a/b, c/d",
        "reason": "NotAcceptable",
        "code": 406,
    }
