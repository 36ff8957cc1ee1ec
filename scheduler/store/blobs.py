"""The bytes of artifacts in a folder: ``<folder>/<first two digits>/<sha256>``, written to a temporary file and renamed.

The name is the digest of the content, so an existing file never changes, and concurrent writers of the same artifact are harmless.
Pods on this machine read and write the same folder by the same rules (`sidecar/context.py`, `sidecar/artifacts/outputs.py`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tuttilab.scheduler.domain.errors import BadInput, EnvironmentProblem, NotFound, StoreError, TooLarge

STALE_S: Final = 3600.0
"""Of a new file: whoever writes one writes a mebibyte at a time, so it changes all the while."""

_ID = re.compile(r"[0-9a-f]{64}")


class Upload:
    """One artifact being uploaded. Not visible before `Blobs.receive` succeeds."""

    def __init__(self, descriptor: int, limit: int) -> None:
        self.size = 0
        self._file = os.fdopen(descriptor, "wb")
        self._digest = hashlib.sha256()
        self._limit = limit

    def write(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > self._limit:
            raise too_large(self.size, self._limit)
        self._digest.update(chunk)
        try:
            self._file.write(chunk)
        except OSError as error:
            raise _refused(error) from error

    def finish(self, artifact_id: str) -> None:
        found = self._digest.hexdigest()
        if found != artifact_id:
            raise BadInput(f"artifact {artifact_id}: the content has sha256 {found}; send the bytes that the id names.")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


class Blobs:
    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def prepare(self) -> None:
        """Make the folder. Raises EnvironmentProblem when it cannot be used: else every upload and every output would fail."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "it is not writable")
        except OSError as error:
            raise EnvironmentProblem(
                f"artifacts.url: {self.folder} cannot be used ({error.strerror}); name a folder that this user may write."
            ) from error

    def path(self, artifact_id: str) -> Path:
        """The path of the artifact, whether it exists or not. Raises BadInput for an invalid id: no path leaves the folder."""
        if not _ID.fullmatch(artifact_id):
            raise BadInput(f"artifact: {artifact_id[:80]!r} is no id; expected a sha256, 64 hexadecimal digits in lower case.")
        return self.folder / artifact_id[:2] / artifact_id

    def find(self, artifact_id: str) -> Path:
        path = self.path(artifact_id)
        if not path.is_file():
            raise NotFound(f"There is no artifact {artifact_id}.")
        return path

    def sweep(self, now: float) -> int:
        """Remove what killed writers left: new files that nobody has written to for `STALE_S`; returns their number."""
        swept = 0
        for path in (*self.folder.glob(".*"), *self.folder.glob("??/.*")):
            with contextlib.suppress(OSError):  # its writer was faster, or it is not ours to remove
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and now - status.st_mtime > STALE_S:
                    path.unlink()
                    swept += 1
        return swept

    @contextlib.contextmanager
    def receive(self, artifact_id: str) -> Iterator[Upload]:
        """Context of one upload: the artifact exists once the block, which calls `Upload.finish`, ends without an error."""
        path = self.path(artifact_id)
        upload = None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=".", dir=path.parent)
            try:
                upload = Upload(descriptor, self.limit)
                yield upload
                os.replace(name, path)
                folder = os.open(path.parent, os.O_RDONLY)
                os.fsync(folder)
                os.close(folder)
            finally:
                if upload is not None:
                    upload.close()
                Path(name).unlink(missing_ok=True)
        except OSError as error:
            raise _refused(error) from error


def too_large(size: int, limit: int) -> TooLarge:
    return TooLarge(f"{size} bytes or more were sent, and at most {limit} are taken; send less, or mount the data instead.")


def _refused(error: OSError) -> StoreError:
    return StoreError(f"The artifact folder refused: {error.strerror} ({error.filename}); make room or mend its mode.")
