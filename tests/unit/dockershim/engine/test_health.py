"""When an engine is given up, and when it is looked at more closely."""

from __future__ import annotations

import pytest

from dockershim.engine.errors import ContainerdAway
from dockershim.engine.health import PINGS_PER_DEEP_LOOK, EngineHealth
from dockershim.errors import NotFound, Unavailable

WHOLE = {"Components": [{"Name": "Engine"}, {"Name": "containerd"}]}
HEADLESS = {"Components": [{"Name": "Engine"}]}


@pytest.fixture
def health() -> EngineHealth:
    made = EngineHealth()
    made.connected(WHOLE)
    return made


def test_calls_end_at_once_until_a_ping_is_answered(health: EngineHealth) -> None:
    health.require_answers()
    health.silent("no answer within 5 s")
    with pytest.raises(Unavailable, match="within 5 s"):
        health.require_answers()
    health.answered()
    health.require_answers()


def test_a_late_answer_ends_the_silence_so_that_what_it_made_can_be_undone(health: EngineHealth) -> None:
    health.silent("no answer within 5 s")
    health.heard()
    health.require_answers()


def test_a_new_connection_ends_the_silence_too(health: EngineHealth) -> None:
    health.silent("no answer")
    health.connected(WHOLE)
    health.require_answers()


def test_containerd_is_asked_about_now_and_then(health: EngineHealth) -> None:
    assert [health.answered() for _ in range(PINGS_PER_DEEP_LOOK)] == [False] * (PINGS_PER_DEEP_LOOK - 1) + [True]


def test_a_call_that_failed_for_want_of_containerd_has_it_asked_about_until_it_is_back(health: EngineHealth) -> None:
    with pytest.raises(ContainerdAway), health.listening():
        raise ContainerdAway("dial")
    for _ in range(2):
        assert health.answered()
        with pytest.raises(ContainerdAway):
            health.judge(HEADLESS, health.doubts)
    assert health.answered()
    health.judge(WHOLE, health.doubts)
    assert not health.answered()


def test_a_doubt_outlives_a_look_that_began_before_it(health: EngineHealth) -> None:
    before = health.doubts
    with pytest.raises(ContainerdAway), health.listening():
        raise ContainerdAway("dial")
    health.judge(WHOLE, before)
    assert health.answered()


def test_a_new_connection_while_containerd_is_away_does_not_take_that_for_normal(health: EngineHealth) -> None:
    health.connected(HEADLESS)
    assert health.answered()
    with pytest.raises(ContainerdAway):
        health.judge(HEADLESS, health.doubts)


def test_any_words_for_something_that_is_away_are_reason_to_look(health: EngineHealth) -> None:
    with pytest.raises(Unavailable), health.listening():
        raise Unavailable("Docker: no words that anybody foresaw")
    assert health.answered()


def test_other_errors_are_no_reason_to_look(health: EngineHealth) -> None:
    with pytest.raises(NotFound), health.listening():
        raise NotFound("container", "x")
    assert not health.answered()


def test_an_engine_that_never_named_containerd_is_not_asked_for_it() -> None:
    health = EngineHealth()
    health.connected(HEADLESS)
    assert not any(health.answered() for _ in range(2 * PINGS_PER_DEEP_LOOK))
