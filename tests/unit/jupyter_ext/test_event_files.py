"""What is said of event files that TensorBoard must not read, or will not show whole."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

from tuttilab.jupyter_ext.event_files import LARGEST_ENTRY, Look, look, masked_checksum

NAME = "events.out.tfevents.1"


def entry(data: bytes) -> bytes:
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", masked_checksum(head)) + data + struct.pack("<I", masked_checksum(data))


def claim(length: int) -> bytes:
    head = struct.pack("<Q", length)
    return head + struct.pack("<I", masked_checksum(head))


def test_the_checksum_is_that_of_tensorflow() -> None:
    # RFC 3720 gives E3069283 for these nine; TensorFlow turns and shifts it.
    crc = 0xE3069283
    assert masked_checksum(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_whole_files_and_one_that_is_being_written_have_nothing_to_say(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(entry(b"a") * 3)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / NAME).write_bytes(entry(b"a") + entry(b"half")[:-7])
    assert look(tmp_path) == Look()


def test_an_entry_of_gigabytes_is_refused_without_reading_it(tmp_path: Path) -> None:
    with open(tmp_path / NAME, "wb") as file:
        file.write(entry(b"fine") + claim(8 * 2**30))
        file.truncate(9 * 2**30)
    begun = time.process_time()

    said = look(tmp_path).refusal

    assert said == (
        f"The event file {NAME} has an entry of 8192 MiB, which TensorBoard would read whole; expected at most 64 MiB. Remove the "
        "file from the results, and open it again."
    )
    assert time.process_time() - begun < 1


def test_a_damaged_file_is_told_with_the_place(tmp_path: Path) -> None:
    whole = entry(b"a" * 100)
    (tmp_path / NAME).write_bytes(whole + b"\xff" * 40)
    said = f"The event file {NAME} is damaged after {len(whole)} bytes; TensorBoard shows what stands before."
    assert look(tmp_path) == Look(note=said)
    # An end that no other data follows is what stands when it is being written.
    (tmp_path / NAME).write_bytes(b"")
    assert look(tmp_path) == Look()


def test_zeros_links_fifos_and_a_file_without_end_hold_nobody_up(tmp_path: Path) -> None:
    with open(tmp_path / f"{NAME}.zeros", "wb") as file:
        file.truncate(2**40)
    os.mkfifo(tmp_path / f"{NAME}.fifo")
    (tmp_path / f"{NAME}.link").symlink_to("/dev/zero")
    (tmp_path / f"{NAME}.many").write_bytes(entry(b"") * 60_000)
    assert look(tmp_path).refusal == ""
    (tmp_path / f"{NAME}.limit").write_bytes(claim(LARGEST_ENTRY))
    assert look(tmp_path).refusal == ""
