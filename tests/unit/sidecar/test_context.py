"""What is prepared before the main command starts, and what is refused."""

import fcntl
import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tuttilab.sidecar import context

ENV = {"A": "1", "B_2": "two"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("x$(A)$(B_2)y", "x1twoy"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$$(A)"),
        ("$(NOBODY)", "$(NOBODY)"),
        ("$A ${A} $( A ) $()", "$A ${A} $( A ) $()"),
    ],
)
def test_names_are_expanded_as_kubernetes_does(text: str, expanded: str) -> None:
    assert context.expand(text, ENV) == expanded


@pytest.mark.parametrize(("url", "folder"), [("file:///a/b", "/a/b"), ("file:///a%20b", "/a b"), ("file:///", "/")])
def test_store_is_a_folder(url: str, folder: str) -> None:
    assert context.store_folder(url) == folder


@pytest.mark.parametrize("url", ["", "/a/b", "file://host/a", "s3://bucket", "http://x/y"])
def test_other_stores_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected an artifact store"):
        context.store_folder(url)


@pytest.mark.parametrize("artifact", ["", "..", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_artifact_is_a_digest(artifact: str) -> None:
    with pytest.raises(ValueError, match="is no artifact"):
        context.artifact_path("/store", artifact)


def plan(tmp_path: Path, **given: Any) -> dict[str, Any]:
    dirs = {name: str(tmp_path / name) for name in ("work", "code", "data")}
    for folder in dirs.values():
        Path(folder).mkdir(exist_ok=True)
    store = (tmp_path / "store").as_uri()
    return {"dirs": dirs, "env": ENV, "workdir": None, "code": None, "inputs": [], "artifacts_url": store, **given}


def keep(tmp_path: Path, content: bytes, name: str | None = None) -> str:
    digest = name or hashlib.sha256(content).hexdigest()
    path = tmp_path / "store" / digest[:2] / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return digest


def tar_of(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        tar.addfile(info)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["pkg/mod.py", "/pkg/mod.py"])
def test_bundle_is_unpacked(tmp_path: Path, name: str) -> None:
    context.prepare(plan(tmp_path, code=keep(tmp_path, tar_of(name))))

    assert (tmp_path / "code" / "pkg" / "mod.py").is_file()


@pytest.mark.feature("J06")
@pytest.mark.parametrize(
    "content",
    [tar_of("../escape"), tar_of("x", tarfile.SYMTYPE, "/etc"), tar_of("x", tarfile.FIFOTYPE), b"no tar"],
)
def test_bundle_that_is_no_plain_tar_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(context.PreparationFailed, match="cannot be unpacked") as refused:
        context.prepare(plan(tmp_path, code=keep(tmp_path, content)))

    assert refused.value.reason == "InputCorrupt"
    assert not (tmp_path / "escape").exists()


def test_bundle_with_another_content_is_refused(tmp_path: Path) -> None:
    code = keep(tmp_path, tar_of("mod.py"), name="ab" * 32)

    with pytest.raises(context.PreparationFailed, match="another content") as refused:
        context.prepare(plan(tmp_path, code=code))

    assert (refused.value.reason, list((tmp_path / "code").iterdir())) == ("InputCorrupt", [])


@pytest.mark.parametrize("path", ["/etc/passwd", "..", "../x", "a/../../x", ".", "", "out/x", "link"])
def test_input_stays_in_its_folder(tmp_path: Path, path: str) -> None:
    made = plan(tmp_path, inputs=[{"path": path, "artifact": keep(tmp_path, b"x")}])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere" / "x")

    if path != "link":
        with pytest.raises(context.PreparationFailed, match="input ") as refused:
            context.prepare(made)
        assert refused.value.reason == "InputMissing"
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert not (tmp_path / "x").exists()


def test_folder_of_inputs_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    made = plan(tmp_path, inputs=[{"path": "x", "artifact": keep(tmp_path, b"x")}])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").rmdir()
    (tmp_path / "data").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(context.PreparationFailed, match="cannot be written"):
        context.prepare(made)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("path", [".lock", "a/../.lock", "data.lock", "x.new"])
def test_no_name_of_an_input_is_one_of_ours(tmp_path: Path, path: str) -> None:
    artifacts = [keep(tmp_path, b"first"), keep(tmp_path, b"second")]
    inputs = [{"path": path, "artifact": artifacts[0]}, {"path": "x", "artifact": artifacts[1]}]

    context.prepare(plan(tmp_path, inputs=inputs))

    assert (tmp_path / "data" / path.rpartition("/")[2]).read_bytes() == b"first"
    assert (tmp_path / "data" / "x").read_bytes() == b"second"
    assert len(list((tmp_path / "data").iterdir())) == 2


def test_input_waits_for_no_job_that_holds_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "LOCK_S", 0.0)
    made = plan(tmp_path, inputs=[{"path": "x", "artifact": keep(tmp_path, b"x")}])

    with open(tmp_path / "data.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        context.prepare(made)
    assert (tmp_path / "data" / "x").read_bytes() == b"x"


def test_input_artifact_lies_below_data(tmp_path: Path) -> None:
    needed = {"path": "a/b.txt", "artifact": keep(tmp_path, b"x")}

    context.prepare(plan(tmp_path, inputs=[needed, needed]))

    assert (tmp_path / "data" / "a" / "b.txt").read_bytes() == b"x"


@pytest.mark.feature("C09")
@pytest.mark.parametrize(
    "needed",
    [
        {"path": "/no/file", "artifact": None},
        {"path": "no-file", "artifact": None},
        {"path": "a", "artifact": "ab" * 32},
        {"path": "../a", "artifact": hashlib.sha256(b"x").hexdigest()},
        {"path": "a", "artifact": "../x"},
    ],
)
def test_input_that_is_missing_is_named(tmp_path: Path, needed: dict[str, Any]) -> None:
    keep(tmp_path, b"x")

    with pytest.raises(context.PreparationFailed, match=needed["path"]) as refused:
        context.prepare(plan(tmp_path, inputs=[needed]))

    assert refused.value.reason == "InputMissing"


def test_input_path_that_is_there_is_enough(tmp_path: Path) -> None:
    made = plan(tmp_path, inputs=[{"path": "here", "artifact": None}, {"path": str(tmp_path), "artifact": None}])
    (tmp_path / "work" / "here").touch()

    context.prepare(made)

    assert context.working_directory(made) == str(tmp_path / "work")


def test_working_directory_of_the_job(tmp_path: Path) -> None:
    (tmp_path / "work" / "1").mkdir(parents=True)

    assert context.working_directory(plan(tmp_path, workdir="$(A)")) == str(tmp_path / "work" / "1")
    with pytest.raises(context.PreparationFailed, match="/nowhere is not there") as refused:
        context.working_directory(plan(tmp_path, workdir="/nowhere"))
    assert refused.value.reason == "WorkdirMissing"
