"""The form that a user sees, and what a user, or a script in their name, may send back."""

import pytest

from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.requests import AccountRequest, ProfileRequest
from tuttilab.scheduler.domain.wire import ProfileView
from tuttilab.spawner.options import NOTHING_OFFERED, checked, from_form
from tuttilab.spawner.options import form as form_of


def form(profiles: list[ProfileRequest], queues: tuple[str, ...] = ("research",)) -> str:
    return form_of([ProfileView(profile=profile, applied_by="root", applied_at=0.0, queues=queues) for profile in profiles])


EVIL = '"><script>alert(1)</script>'


def test_form_lists_the_profiles_and_chooses_the_first() -> None:
    html = form([ProfileRequest(name="cpu", title="Small"), ProfileRequest(name="gpu", gpus=2, description="For training")])

    assert html.count('type="radio"') == 2
    assert html.index('value="cpu" checked') < html.index('value="gpu">')
    assert "<strong>Small</strong> (1 CPU, 2Gi)" in html
    assert "2Gi; may be stopped for others)" in form([ProfileRequest(name="a", preemptible=True), ProfileRequest(name="b")])
    assert "(1 CPU, 2Gi, 2 GPU)<br><small>For training</small>" in html
    assert 'name="image"' not in html


def test_form_has_an_image_where_a_profile_leaves_the_choice() -> None:
    html = form([ProfileRequest(name="p", image="lab:1", images=("lab:2",), custom_images=("reg.example/team",))])

    assert '<option value="lab:1"><option value="lab:2">' in html
    assert "any below reg.example/team." in html


def test_nothing_to_choose_is_no_form() -> None:
    assert form([ProfileRequest(name="only")]) == ""
    assert NOTHING_OFFERED in form([])


def test_form_has_a_queue_where_a_profile_leaves_several() -> None:
    two = form([ProfileRequest(name="only")], queues=("research", "quant"))
    pinned = ProfileView(profile=ProfileRequest(name="pinned"), applied_by="root", applied_at=0.0, queues=("batch",))
    mixed = form_of([ProfileView(profile=ProfileRequest(name="p"), applied_by="r", applied_at=0.0, queues=("a", EVIL)), pinned])

    assert '<option value="">the first that has room</option><option value="research">research</option><option' in two
    assert "<small>only: research, quant</small>" in two
    assert "<script>" not in mixed
    assert "batch" not in mixed
    assert from_form({"profile": ["p"], "queue": ["quant"]}) == {"profile": "p", "queue": "quant"}
    assert checked({"queue": "quant"}) == {"queue": "quant"}
    assert "tutti-queue" not in form([ProfileRequest(name="p", proxy_users={"etl": AccountRequest(uid=7, gid=7)})])


def test_texts_of_a_profile_are_texts() -> None:
    profile = ProfileRequest(name="p", title=EVIL, description=EVIL, image=EVIL, images=("x",), memory=EVIL)

    assert "<script>" not in form([profile, profile])


def test_form_gives_what_was_chosen() -> None:
    assert from_form({"profile": ["gpu"], "image": [" "], "_xsrf": ["t"]}) == {"profile": "gpu"}
    assert from_form({"profile": ["gpu"], "image": ["lab:2 "]}) == {"profile": "gpu", "image": "lab:2"}


@pytest.mark.parametrize("options", [{"node": "a"}, {"profile": 1}, {"image": ["x"]}, {"profile": None}])
def test_what_cannot_be_chosen_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(BadInput, match="options: "):
        checked(options)
