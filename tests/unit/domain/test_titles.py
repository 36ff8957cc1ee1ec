"""How jobs and pods are called in sentences, and why a pod was stopped."""

import re
from dataclasses import replace

import pytest

from tests.builders import job
from tuttilab.scheduler.clusters.base import LaunchPlan
from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.model import Job, StopReason, Work
from tuttilab.scheduler.domain.titles import check_visible, pod_title, title, title_of, visible
from tuttilab.scheduler.domain.wire import from_json, to_json
from tuttilab.scheduler.domain.words import STOPPED_BECAUSE

ID = "01jd2v5c7q8x9y0z1a2b3c4d5e"


def test_a_job_is_called_by_its_name_and_the_beginning_of_its_id() -> None:
    one = job(name="train")

    assert title(one) == f"'train' ({one.id[:8]})"
    assert title_of(ID, "n" * 60) == f"'{'n' * 39}…' (01jd2v5c)"
    assert title_of(ID) == "01jd2v5c"


@pytest.mark.parametrize(
    ("name", "called"),
    [
        (f"{ID}-1-worker-0", "worker 0"),
        (f"{ID}-12-parameter-server-3", "parameter-server 3"),
        (f"{ID}-1-worker-2-g1", "worker 2"),
        (f"{ID}-1-master", "master"),
        ("lonely", "pod lonely"),
    ],
)
def test_a_pod_is_called_by_its_role_and_number(name: str, called: str) -> None:
    assert pod_title(name) == called


@pytest.mark.feature("B30")
def test_what_a_cluster_refuses_names_the_job() -> None:
    plan = LaunchPlan(ID, 2, "ann", "batch", 1, Work(("true",)), (), gang_key="", report_url="", job_name="train")

    assert plan.title == "attempt 2 of job 'train' (01jd2v5c)"


@pytest.mark.feature("B30")
def test_every_reason_to_stop_has_words_of_its_own_without_an_id_or_a_phase() -> None:
    assert set(STOPPED_BECAUSE) == set(StopReason)
    assert len(set(STOPPED_BECAUSE.values())) == len(StopReason)
    assert all(re.fullmatch(r"[a-z ]{10,50}", words) for words in STOPPED_BECAUSE.values())


@pytest.mark.parametrize("name", ["train", "Übung 3 – 漢字 👍🏽", "नमूना", "a\u00a0b", "e\u0301"])
def test_a_name_in_any_script_is_read_as_written(name: str) -> None:
    check_visible(name, "name")
    assert visible(name) == name


@pytest.mark.parametrize("character", ["\u202e", "\u2069", "\u200b", "\u200d", "\u00ad", "\ufeff", "\u2028", "\U000e0041"])
def test_a_character_that_is_not_seen_is_named(character: str) -> None:
    with pytest.raises(BadInput, match=rf"^name: 'tr.*ain' holds U\+{ord(character):04X} [A-Z]"):
        check_visible(f"tr{character}ain", "name")
    assert visible(f"tr{character}ain") == "train"


def test_a_job_that_has_such_a_name_already_is_read_again() -> None:
    old = replace(job(name="train"), name="tr\u202eain")

    assert from_json(Job, to_json(old)) == old
    assert title(old).startswith("'tr\u202eain'")
