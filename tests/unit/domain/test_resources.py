"""Amounts as people write them, and the arithmetic on them."""

import pytest

from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.resources import (
    GPU,
    Resources,
    parse_count,
    parse_cpu,
    parse_duration,
    parse_memory,
    show_amount,
    show_duration,
)


@pytest.mark.parametrize(("text", "milli"), [("2", 2000), (2, 2000), (0.5, 500), ("1500m", 1500), ("0.001", 1)])
def test_cpus_are_milli_cores(text: object, milli: int) -> None:
    assert parse_cpu(text) == milli


@pytest.mark.parametrize(
    ("text", "size"),
    [("8Gi", 8 * 2**30), ("16G", 16 * 10**9), ("1.5Gi", 3 * 2**29), (2**20, 2**20), ("512Ki", 2**19), ("0", 0), ("1k", 1000)],
)
def test_memory_is_bytes(text: object, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("bad", ["1.5", 1.5, "1e1", "-1", -1, True, "one", "", "1 GPU", "0x10", None, float("nan"), float("inf")])
def test_N06_a_fraction_of_a_device_is_refused_with_the_fields_name(bad: object) -> None:
    with pytest.raises(BadInput) as caught:
        parse_count(bad, "gpus")
    assert str(caught.value).startswith(f"gpus: {bad!r}")
    assert "expected a whole number such as 0, 1 or 4" in str(caught.value)


def test_an_unknown_unit_of_memory_says_what_was_expected() -> None:
    with pytest.raises(BadInput) as caught:
        parse_memory("5Q", "--memory")
    assert str(caught.value) == "--memory: '5Q' has the unknown unit 'Q'; expected bytes such as 512Mi, 8Gi or 16G."


@pytest.mark.parametrize("bad", ["-8Gi", "8 Gi", "1e3", "8GiB", "٣", "9" * 30, "99999999999Pi", True, [1]])
def test_memory_that_is_no_quantity_is_refused(bad: object) -> None:
    with pytest.raises(BadInput):
        parse_memory(bad)


def test_a_vector_without_a_key_has_zero_of_it() -> None:
    assert Resources.of({"cpu": 1000, GPU: 0}) == Resources.of({"cpu": 1000})
    assert Resources.of({"cpu": 1000})[GPU] == 0


def test_fits_asks_for_every_key_and_within_only_for_those_of_the_limit() -> None:
    pod = Resources.of({"cpu": 1000, GPU: 1})
    assert not pod.fits(Resources.of({"cpu": 4000}))
    assert pod.within(Resources.of({"cpu": 4000}))
    assert pod.over(Resources.of({"cpu": 400})) == Resources.of({"cpu": 600})
    assert pod.short_of(Resources.of({"cpu": 4000})) == Resources.of({GPU: 1})


def test_the_dominant_share_is_the_largest_share_of_one_resource() -> None:
    assert Resources.of({"cpu": 2000, GPU: 3}).dominant_share(Resources.of({"cpu": 8000, GPU: 4})) == 0.75
    assert Resources.of({GPU: 1}).dominant_share(Resources.of({"cpu": 1})) == float("inf")


def test_amounts_are_shown_as_people_write_them() -> None:
    assert str(Resources.parse({"cpu": "1500m", "memory": "8Gi", GPU: 2})) == "1500m CPU, 8Gi memory, 2 GPU"
    assert show_amount("memory", 1536 * 2**20) == "1.5Gi"


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), (90, 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800)])
def test_durations_are_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("bad", ["", "0", "-1s", "10 m", "1w", "h", True, "9999999999h", None])
def test_what_is_no_duration_is_refused(bad: object) -> None:
    with pytest.raises(BadInput, match="expected one such as 90s, 10m, 1h30m or 2d"):
        parse_duration(bad)


def test_durations_are_shown_in_two_units() -> None:
    assert [show_duration(s) for s in (5, 60, 125, 5400, 90000)] == ["5s", "1m", "2m05s", "1h30m", "1d1h"]
