"""How a job, run or pod is called in sentences for users: by its name and the beginning of its id, never by the id alone.

And what a name may hold, so that it is read as it is written.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

from tuttilab.scheduler.domain.errors import BadInput

if TYPE_CHECKING:
    from tuttilab.scheduler.domain.model import Job, Run

SHORT_ID: Final = 8
_UNSEEN: Final = frozenset({"Cf", "Zl", "Zp", "Cs"})
LONGEST_NAME: Final = 40


def title(job: Job | Run) -> str:
    """``'train' (3f2a9c12)``: the name, and the part of the id that every surface accepts."""
    return title_of(job.id, job.name)


def title_of(id: str, name: str = "") -> str:
    """The same from its parts; the beginning of the id alone where nothing else is known."""
    if not name:
        return id[:SHORT_ID]
    shown = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
    return f"'{shown}' ({id[:SHORT_ID]})"


def check_visible(text: str, field: str) -> None:
    """Raises BadInput for a character that is not seen, or that changes how those around it are shown (Unicode Cf, Zl, Zp, Cs).

    With such characters two names look the same, and one may be read backwards. Names that are kept already may have them.
    """
    if text.isprintable():
        return
    for character in text:
        if _is_unseen(character):
            called = f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()
            raise BadInput(
                f"{field}: {text[:40]!r} holds {called}, which is not seen or changes how other characters are shown; leave it out."
            )


def visible(text: str) -> str:
    """The text without such characters, for a name that is taken from a file's."""
    return "".join(character for character in text if not _is_unseen(character))


def _is_unseen(character: str) -> bool:
    return not character.isprintable() and unicodedata.category(character) in _UNSEEN


def pod_title(name: str) -> str:
    """``worker 0`` for ``01ab…-1-worker-0``: job and attempt are known where the sentence stands."""
    found = _POD_NAME.fullmatch(name)
    if found is None:
        return f"pod {name}"
    return found["role"] + (f" {found['rank']}" if found["rank"] else "")


_POD_NAME: Final = re.compile(r"[0-9a-z]{26}-\d+-(?P<role>.+?)(?:-(?P<rank>\d+))?(?:-g\d+)?")
