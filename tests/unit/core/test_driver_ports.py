"""Driver ports of notebook servers: ranges, choices, and what is refused."""

import pytest

from tuttilab.scheduler.core.kinds import driver_ports
from tuttilab.scheduler.domain.errors import AboveMax, BadInput

POOL = range(30100, 30108)


def test_a_range_is_read_with_both_ends() -> None:
    assert driver_ports.range_of("30100-30107", "driver_ports") == POOL
    assert driver_ports.range_of("", "driver_ports") == range(0)


@pytest.mark.parametrize("text", ["30100", "a-b", "30107-30100", "80-90", "30100-70000", "-", "30100-30107-9", "³0100-30107"])
def test_what_is_no_range_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInput, match=r"driver_ports: .*expected one such as 30100-30299"):
        driver_ports.range_of(text, "driver_ports")


@pytest.mark.parametrize(
    ("count", "pool", "why"),
    [(-1, POOL, "expected 0 to 8"), (9, POOL, "expected 0 to 8"), (1, range(0), "the site has none"), (4, POOL[:3], "has 3")],
)
def test_a_profile_asks_for_no_more_ports_than_there_are(count: int, pool: range, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        driver_ports.check(count, pool)


def test_ports_go_round_so_that_a_freed_one_rests() -> None:
    assert [driver_ports.chosen(3, POOL, (), order) for order in (0, 1, 2, 8)] == [
        (30100, 30101, 30102),
        (30103, 30104, 30105),
        (30100, 30106, 30107),
        (30100, 30101, 30102),
    ]


def test_taken_ones_are_passed_over_and_too_few_are_refused_with_what_to_do() -> None:
    assert driver_ports.chosen(2, POOL, {30100, 30102}, 0) == (30101, 30103)
    with pytest.raises(AboveMax, match=r"2 asked, and 1 of the site's 8 \(30100-30107\) are free: .* try again later"):
        driver_ports.chosen(2, POOL, set(POOL) - {30104}, 0)
