"""The spawn options: renders the form from the profiles and validates the choice, which may come from any script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from tuttilab.scheduler.domain.errors import BadInput
from tuttilab.scheduler.domain.requests import ProfileRequest
from tuttilab.scheduler.domain.wire import ProfileView

KEYS: Final = ("profile", "image", "queue", "run_as")
NOTHING_OFFERED: Final = "No profile is offered to you; ask an admin for a group or a profile."


def form(offers: Sequence[ProfileView]) -> str:
    """The form's HTML for the hub's page; empty when there is nothing to choose."""
    profiles = [offer.profile for offer in offers]
    if not profiles:
        return notice(NOTHING_OFFERED)
    choices = f"{_images(profiles)}{_queues(offers)}{_proxy_users(profiles)}"
    if len(profiles) == 1 and not choices:
        return ""
    rows = "".join(_choice(profile, is_first=profile is profiles[0]) for profile in profiles)
    return f'<fieldset class="form-group"><legend>Profile</legend>{rows}</fieldset>{choices}'


def notice(text: str) -> str:
    return f'<p class="alert alert-warning">{escape(text)}</p>'


def _choice(profile: ProfileRequest, *, is_first: bool) -> str:
    name, checked = escape(profile.name), " checked" if is_first else ""
    gpus = f", {profile.gpus} GPU" if profile.gpus else ""
    risk = "; may be stopped for others" if profile.preemptible else ""
    size = escape(f"{profile.cpus} CPU, {profile.memory}{gpus}{risk}")
    about = f"<br><small>{escape(profile.description)}</small>" if profile.description else ""
    return (
        f'<div class="radio"><label><input type="radio" name="profile" value="{name}"{checked}> '
        f"<strong>{escape(profile.title or profile.name)}</strong> ({size}){about}</label></div>"
    )


def _images(profiles: Sequence[ProfileRequest]) -> str:
    if not any(profile.images or profile.custom_images for profile in profiles):
        return ""
    known = dict.fromkeys(image for profile in profiles for image in (profile.image, *profile.images) if image)
    below = dict.fromkeys(prefix for profile in profiles for prefix in profile.custom_images)
    hint = f"Empty for the profile's own; any below {', '.join(below)}." if below else "Empty for the profile's own."
    listed = "".join(f'<option value="{escape(image)}">' for image in known)
    return (
        '<div class="form-group"><label for="tutti-image">Image</label>'
        '<input class="form-control" id="tutti-image" name="image" list="tutti-images">'
        f'<datalist id="tutti-images">{listed}</datalist><small>{escape(hint)}</small></div>'
    )


def _queues(offers: Sequence[ProfileView]) -> str:
    """Only where there is a choice: a profile whose servers wait in one queue has none."""
    choosing = [offer for offer in offers if len(offer.queues) > 1]
    if not choosing:
        return ""
    of_profiles = "; ".join(f"{offer.profile.name}: {', '.join(offer.queues)}" for offer in choosing)
    names = dict.fromkeys(name for offer in choosing for name in offer.queues)
    choices = "".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in names)
    return (
        '<div class="form-group"><label for="tutti-queue">Queue</label>'
        '<select class="form-control" id="tutti-queue" name="queue"><option value="">the first that has room</option>'
        f"{choices}</select><small>{escape(of_profiles)}</small></div>"
    )


def _proxy_users(profiles: Sequence[ProfileRequest]) -> str:
    offered = dict.fromkeys(name for profile in profiles for name in profile.proxy_users)
    if not offered:
        return ""
    of_profiles = "; ".join(f"{profile.name}: {', '.join(profile.proxy_users)}" for profile in profiles if profile.proxy_users)
    choices = "".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in offered)
    return (
        '<div class="form-group"><label for="tutti-run-as">Run as</label>'
        '<select class="form-control" id="tutti-run-as" name="run_as"><option value="">yourself</option>'
        f"{choices}</select><small>{escape(of_profiles)}</small></div>"
    )


def from_form(data: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The first value of each known field; empty fields are left out."""
    first = {key: str(values[0]).strip() for key, values in data.items() if values}
    return {key: value for key, value in first.items() if key in KEYS and value}


def checked(options: Mapping[str, object]) -> dict[str, str]:
    """Validates a choice from any source. Raises BadInput naming the key."""
    for key, value in options.items():
        if key not in KEYS:
            raise BadInput(f"options: {str(key)[:60]!r} cannot be chosen; expected {', '.join(KEYS[:-1])} and {KEYS[-1]}.")
        if not isinstance(value, str):
            raise BadInput(f"options: {key} is {value!r}; expected a text.")
    return {key: str(value) for key, value in options.items() if value}
