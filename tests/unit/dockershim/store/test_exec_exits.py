"""How the end of an exec is learnt, in virtual time."""

import asyncio

import pytest

from dockershim.store.exec_exits import KILLED, LATE_SECONDS, ExecExits

pytestmark = pytest.mark.looptime


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_docker_tells_the_exit_code() -> None:
    """Once; what is no number is no code, and of an exec that nobody waits for nothing is kept."""
    exits = ExecExits()
    exits.tell({"execID": "e", "exitCode": "1"})
    with exits.expect("e", "c") as end:
        exits.tell({"execID": "e", "exitCode": "soon"})
        assert not end.told.done()
        await end.follow(asyncio.sleep(5))
        exits.tell({"execID": "e", "exitCode": "3"})
        exits.tell({"execID": "e", "exitCode": "4"})
        assert (end.told.result(), now()) == (3, 5)
    assert not exits._waiting


async def test_an_exec_ends_a_moment_after_its_container() -> None:
    """Also where its output does not; others go on."""
    exits = ExecExits()
    with exits.expect("e", "c") as end, exits.expect("f", "d") as other:
        asyncio.get_running_loop().call_later(7, exits.container_ended, "c")
        asyncio.get_running_loop().call_later(7.5, exits.container_ended, "c")
        async with asyncio.TaskGroup() as group:
            group.create_task(other.follow(asyncio.sleep(60)))
            await end.follow(asyncio.sleep(1000))
            assert (end.told.result(), now()) == (KILLED, 7 + LATE_SECONDS)
        assert (other.told.done(), now()) == (False, 60)


async def test_what_docker_tells_counts_more_than_the_end_of_the_container() -> None:
    """It comes a moment before or after."""
    exits = ExecExits()
    with exits.expect("e", "c") as end:
        exits.container_ended("c")
        exits.tell({"execID": "e", "exitCode": "0"})
        await end.follow(asyncio.sleep(1000))
        assert (end.told.result(), now()) == (0, LATE_SECONDS)


async def test_another_time_that_is_over_is_not_the_end_of_the_container() -> None:
    """As that of the call."""
    exits = ExecExits()
    with exits.expect("e", "c") as end, pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            await end.follow(asyncio.sleep(1000))
    assert not end.told.done()


async def test_a_time_that_is_over_within_the_output_is_a_failure_of_its_own() -> None:
    async def fail() -> None:
        raise TimeoutError("of somebody else")

    with ExecExits().expect("e", "c") as end, pytest.raises(TimeoutError, match="of somebody else"):
        await end.follow(fail())
