"""The copy of a pod's log, also over a restart in the midst of it."""

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator, Awaitable, Mapping
from pathlib import Path
from typing import cast

import pytest

from tuttilab.scheduler.clusters.kept.logs import PodLog
from tuttilab.scheduler.clusters.kubernetes import logs
from tuttilab.scheduler.clusters.kubernetes.api import Api
from tuttilab.scheduler.clusters.kubernetes.errors import ApiError
from tuttilab.scheduler.clusters.kubernetes.logs import CUT, PLACE, WHOLE, LogCopy, Turns, follow, is_of_another_machine, is_whole
from tuttilab.scheduler.domain.errors import ClusterUnreachable


def lines(*texts: str, first: int = 0) -> list[bytes]:
    return [f"2026-11-29T12:00:00.{first + number:09d}Z {text}".encode() for number, text in enumerate(texts)]


def read(folder: Path, cap: int = 2**20) -> tuple[str, ...]:
    return PodLog(folder, cap).read(0, 1000, is_over=True).lines


def test_lines_come_without_their_times_and_in_their_newest_state(tmp_path: Path) -> None:
    copy = LogCopy(tmp_path)
    copy.begin()
    copy.add(lines("a", "", "10 %\r20 %\r", "x" * 9000))
    copy.close()

    assert read(tmp_path) == ("a", "", "20 %", "x" * 8192)


def test_who_comes_back_goes_on_after_the_last_line_that_was_noted(tmp_path: Path) -> None:
    copy = LogCopy(tmp_path)
    copy.begin()
    copy.add(lines("a", "b"))
    copy.close()

    again = LogCopy(tmp_path)
    again.begin()
    again.add(lines("a", "b", "c"))
    again.close()

    assert read(tmp_path) == ("a", "b", "c")


def test_a_kill_between_the_copy_and_its_note_repeats_nothing(tmp_path: Path) -> None:
    copy = LogCopy(tmp_path)
    copy.begin()
    copy.add(lines("a"))
    noted = (tmp_path / PLACE).read_bytes()
    copy.add(lines("b", "c", first=1))
    copy.close()
    (tmp_path / PLACE).write_bytes(noted)
    with (tmp_path / "log").open("ab") as file:
        file.write(b"half a li")

    again = LogCopy(tmp_path)
    again.begin()
    again.add(lines("a", "b", "c", "d", "e"))
    again.close()

    assert read(tmp_path) == ("a", "b", "c", "d", "e")


def test_a_former_leader_that_goes_on_writes_where_nobody_looks(tmp_path: Path) -> None:
    """It was suspended, another control plane that sees the same folder took over, and it continues."""
    former = LogCopy(tmp_path, is_shared=True)
    former.begin()
    former.add(lines("a", "b"))

    leader = LogCopy(tmp_path, is_shared=True)
    leader.begin()
    former.add(lines("c", first=2))
    leader.add(lines("a", "b", "c", "d"))
    former.add(lines("d", "e", first=3))
    former.finish("of the former one")

    assert not is_whole(tmp_path)
    leader.add(lines("e", first=4))
    leader.finish("of ours")
    assert is_whole(tmp_path)
    assert read(tmp_path) == ("a", "b", "c", "d", "e", "tuttilab: of ours")
    former.close()
    leader.close()


def test_what_a_former_leader_copied_and_did_not_note_is_not_repeated(tmp_path: Path) -> None:
    former = LogCopy(tmp_path, is_shared=True)
    former.begin()
    former.add(lines("a"))
    (place,) = tmp_path.glob(f"{PLACE}.*")
    noted = place.read_bytes()
    former.add(lines("b", "c", first=1))
    place.write_bytes(noted)
    with (tmp_path / "log").open("ab") as file:
        file.write(b"half a li")

    leader = LogCopy(tmp_path, is_shared=True)
    leader.begin()
    leader.add(lines("a", "b", "c", "d"))

    assert read(tmp_path) == ("a", "b", "c", "d")
    former.close()
    leader.close()


def test_what_a_former_leader_says_of_its_own_file_does_not_end_ours(tmp_path: Path) -> None:
    """It had made sure that the file was its own, was suspended, and writes that it is whole."""
    former = LogCopy(tmp_path, is_shared=True)
    former.finish()
    said = (tmp_path / WHOLE).read_bytes()
    assert is_whole(tmp_path)
    leader = LogCopy(tmp_path, is_shared=True)
    assert not is_whole(tmp_path)

    (tmp_path / WHOLE).write_bytes(said)

    assert not is_whole(tmp_path)
    leader.finish()
    assert is_whole(tmp_path)
    former.close()
    leader.close()


def test_a_log_that_begins_anew_says_so_once_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    copy = LogCopy(tmp_path, is_shared=True)
    copy.begin_anew(Path("/here"))
    copy.close()
    again = LogCopy(tmp_path, is_shared=True)
    again.begin_anew(Path("/here"))
    again.begin()
    again.add(lines("a"))
    again.close()

    said, *others = read(tmp_path)
    assert said.startswith("tuttilab: another control plane copied this log to a folder that is not /here of this one;")
    assert others == ["a"]


def test_lines_of_one_instant_are_all_kept(tmp_path: Path) -> None:
    copy = LogCopy(tmp_path)
    copy.begin()
    copy.add([*lines("a"), *lines("b"), *lines("c")])
    copy.close()

    assert read(tmp_path) == ("a", "b", "c")


def test_a_log_that_is_too_long_says_so_and_still_takes_our_own_line(tmp_path: Path) -> None:
    copy = LogCopy(tmp_path, cap=2**20)
    copy.begin()
    for number in range(200):
        copy.add(lines("x" * 8000, first=number))
    copy.finish("it did not end well")
    copy.close()

    shown = read(tmp_path, 2**22)
    assert shown[-2:] == ("tuttilab: the log is kept up to 1 MiB; what follows is not.", "tuttilab: it did not end well")
    assert (tmp_path / "log").stat().st_size < 2**20 + 200


def test_a_copy_whose_folder_was_erased_says_nothing_of_the_next_one(tmp_path: Path) -> None:
    folder = tmp_path / "pod"
    old = LogCopy(folder)
    old.begin()
    old.add(lines("before"))
    shutil.rmtree(folder)
    new = LogCopy(folder)

    old.add(lines("late", first=1))
    old.finish("it was stopped")

    assert not (folder / WHOLE).exists()
    assert read(folder) == ()
    for copy in (old, new):
        copy.close()


class Answers:
    """The API's answers for one log, in turn: lines, or an error to raise. After ``OPEN`` comes what has no line feed."""

    def __init__(self, *answers: list[bytes] | Exception) -> None:
        self._answers = list(answers)

    async def batches(
        self, path: str, query: Mapping[str, object], idle_s: float, unfinished: list[bytes]
    ) -> AsyncGenerator[list[bytes]]:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        *whole, rest = answer
        if rest.startswith(OPEN):
            unfinished.append(rest.removeprefix(OPEN))
            answer = whole
        yield answer


OPEN = b"<open>"


REMOVED = b"unable to retrieve container logs for containerd://5a94088fe1f6"


def followed(folder: Path, *answers: list[bytes] | Exception) -> tuple[str, ...]:
    """What is kept of a pod that is over once its first answer has come."""
    copy = LogCopy(folder)
    over = iter([False])
    note = asyncio.run(
        follow(cast(Api, Answers(*answers)), "team", "job-0", copy, lambda: next(over, True), asyncio.Event(), Turns())
    )
    copy.finish(note)
    copy.close()
    return read(folder)


def test_words_of_the_kubelet_are_no_line_of_the_log(tmp_path: Path) -> None:
    assert followed(tmp_path, lines("a", "b"), [REMOVED]) == ("a", "b")


def unfinished(line: bytes) -> bytes:
    return OPEN + line


def test_a_line_that_a_new_file_of_the_kubelet_cut_in_two_is_one_line(tmp_path: Path) -> None:
    a, b, c, d = lines("a", "00017", " xxx", "d")
    assert followed(tmp_path, [a, unfinished(b)], [a, c, d]) == ("a", "00017 xxx", "d")


def test_a_line_whose_answer_broke_off_is_not_told_twice(tmp_path: Path) -> None:
    a, b, whole, d = *lines("a", "000"), lines("a", "00017")[1], lines("", "", "d")[2]
    assert followed(tmp_path, [a, unfinished(b)], [a, whole, d]) == ("a", "00017", "d")


def test_what_is_printed_last_without_a_line_feed_is_a_line(tmp_path: Path) -> None:
    a, b = lines("a", "10 %\r100 %")
    assert followed(tmp_path, [a, unfinished(b)], [a, unfinished(b)]) == ("a", "100 %")


def test_words_of_the_kubelet_without_a_line_feed_are_none_either(tmp_path: Path) -> None:
    assert followed(tmp_path, lines("a"), [unfinished(REMOVED)]) == ("a",)


@pytest.mark.parametrize("gone", [[REMOVED], ApiError(404, "NotFound", "pods job-0 not found")], ids=["removed", "gone"])
def test_a_log_that_went_before_its_end_was_copied_says_so(tmp_path: Path, gone: list[bytes] | Exception) -> None:
    shown = followed(tmp_path, lines("a"), ClusterUnreachable("the API server does not answer"), gone)

    assert shown == ("a", f"tuttilab: {CUT}")


def test_a_pod_that_never_ran_has_no_log_and_no_note(tmp_path: Path) -> None:
    assert followed(tmp_path, ApiError(400, "BadRequest", "waiting to start"), ApiError(404, "NotFound", "")) == ()


async def test_logs_that_begin_together_come_one_after_the_other_and_after_pods_that_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "BEGIN_A_SECOND", 300.0)
    monkeypatch.setattr(logs, "PAUSE_S", 0.01)
    is_launching = True
    turns = Turns(is_launching=lambda: is_launching)
    wanted, goes_on = asyncio.Event(), asyncio.Event()
    wanted.set()
    one = asyncio.create_task(turns.begin(goes_on, 0))
    async with asyncio.timeout(5):
        await turns.begin(wanted, 0)  # at once: somebody reads it, or its pod may be gone soon
    await asyncio.sleep(0.05)
    assert not one.done()
    is_launching = False
    await one

    began = time.monotonic()
    at = await asyncio.gather(*(_time_of(turns.begin(goes_on, 0), began) for _ in range(logs.FEW + 60)))

    assert max(at) > 0.15
    assert at == sorted(at)


async def _time_of(work: Awaitable[None], began: float) -> float:
    await work
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("printed", "is_so"),
    [
        (["exec /bin/sh: exec format error"], True),
        (["standard_init_linux.go:228: exec user process caused: exec format error"], True),
        (["exec /bin/sh: exec format error", "tuttilab: a note of ours"], True),
        (["begun", "exec /bin/sh: exec format error"], False),
        (["exec /bin/sh: exec format error", "and more of the user's"], False),
        ([], False),
    ],
)
def test_a_runtime_that_could_not_start_the_program_has_said_so_where_it_would_print(
    tmp_path: Path, printed: list[str], is_so: bool
) -> None:
    copy = LogCopy(tmp_path)
    copy.begin()
    copy.add(lines(*printed))
    copy.close()

    assert is_of_another_machine(tmp_path) is is_so
    assert not is_of_another_machine(tmp_path / "none")
