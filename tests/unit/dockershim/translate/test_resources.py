"""Limits of huge pages, which the kernel keeps in two files for each size."""

from __future__ import annotations

from dockershim.translate.resources import reservation_writes


def test_every_limit_of_huge_pages_is_one_of_reservations_too() -> None:
    writes = {"hugetlb.2MB.max": "4096", "hugetlb.1GB.limit_in_bytes": "0", "memory.high": "max"}
    assert reservation_writes(writes) == {"hugetlb.2MB.rsvd.max": "4096", "hugetlb.1GB.rsvd.limit_in_bytes": "0"}


def test_what_a_pod_says_itself_of_reservations_counts() -> None:
    assert reservation_writes({"hugetlb.2MB.max": "4096", "hugetlb.2MB.rsvd.max": "max"}) == {}
