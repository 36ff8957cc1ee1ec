"""What a pod on this machine gets, and what it leaves: environment, inputs, outputs, limits, logs, endpoints."""

import asyncio
import hashlib
import io
import json
import re
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.contract.clusters import GANG_KEY, Place, all_lines, lines_from, plan, watching
from tests.integration.local.control_plane import ControlPlane
from tuttilab.scheduler.clusters.base import Cluster, LaunchPlan
from tuttilab.scheduler.domain.errors import LaunchRefused
from tuttilab.scheduler.domain.model import Framework, Input, Output
from tuttilab.scheduler.domain.resources import Resources

SHOW_ENV = ("python", "-c", "import json, os; print(json.dumps(dict(os.environ)))")


def keep(store: Path, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    (store / digest[:2]).mkdir(parents=True, exist_ok=True)
    (store / digest[:2] / digest).write_bytes(content)
    return digest


def bundle(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name.replace("_", "."))
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


async def ended(cluster: Cluster, launch: LaunchPlan, rank: int = 0) -> tuple[int | None, str, list[str]]:
    pod = next(pod.name for pod in launch.pods if pod.rank == rank)
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        (state,) = await seen.ended(pod)
        return state.exit_code, state.reason, await all_lines(cluster, launch, rank)


async def envs(cluster: Cluster, launch: LaunchPlan) -> list[dict[str, str]]:
    members = [pod for pod in launch.pods if not pod.is_master]
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await seen.ended(*(pod.name for pod in members))
    return [json.loads((await all_lines(cluster, launch, pod.rank))[-1]) for pod in members]


async def test_environment_of_a_pod(tmp_path: Path, cluster: Cluster) -> None:
    work = {"env": {"MINE": "1", "OMP_NUM_THREADS": "9"}}
    launch = plan("job", *SHOW_ENV, work=work, secrets={"password": "geheim"})
    (env,) = await envs(cluster, launch)

    pod = tmp_path / "pods" / "job" / "1" / "job-1-0"
    wanted = {
        "MINE": "1",
        "OMP_NUM_THREADS": "9",
        "TUTTILAB_JOB_ID": "job",
        "TUTTILAB_ATTEMPT": "1",
        "TUTTILAB_RANK": "0",
        "TUTTILAB_WORLD_SIZE": "1",
        "TUTTILAB_ROLE": "worker",
        "CUDA_VISIBLE_DEVICES": "",
        "NVIDIA_VISIBLE_DEVICES": "",
        "RESULT_DIR": f"{pod}/result",
        "TUTTILAB_CODE_DIR": f"{pod}/code",
    }
    assert {name: env.get(name) for name in wanted} == wanted
    hidden = ("geheim", GANG_KEY, launch.pods[0].token)
    assert not [value for value in env.values() if any(secret in value for secret in hidden)]
    secret = Path(env["TUTTILAB_SECRETS_DIR"]) / "password"
    assert (secret.read_text(), secret.stat().st_mode & 0o777, pod.stat().st_mode & 0o777) == ("geheim", 0o600, 0o700)
    assert (pod / "plan.json").stat().st_mode & 0o777 == 0o600
    assert Path(env["PWD"] if "PWD" in env else pod / "work") == pod / "work"


async def test_main_command_holds_nothing_of_the_sidecars(cluster: Cluster) -> None:
    show = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd')), os.getsid(0) == os.getpid())"

    _, _, lines = await ended(cluster, plan("job", "python", "-c", show))

    assert lines == ["[0, 1, 2, 3] True"]  # 3 is the listing itself


@pytest.mark.feature("J03", "J07")
async def test_members_share_model_and_data_and_keep_results_apart(cluster: Cluster) -> None:
    first, second = await envs(cluster, plan("job", *SHOW_ENV, members=2, work={"framework": Framework.TORCH}))

    assert first["MODEL_DIR"] == second["MODEL_DIR"]
    assert first["DATA_DIR"] == second["DATA_DIR"]
    assert first["RESULT_DIR"] != second["RESULT_DIR"]
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
    assert [[env[name] for name in names] for env in (first, second)] == [
        ["0", "2", "0", "127.0.0.1"],
        ["1", "2", "0", "127.0.0.1"],
    ]
    assert first["MASTER_PORT"] == second["MASTER_PORT"]


@pytest.mark.feature("S03")
async def test_no_user_code_before_every_member_is_ready(tmp_path: Path, cluster: Cluster) -> None:
    launch = plan("job", "date", "+%s.%N", members=4)
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await seen.ended(*(pod.name for pod in launch.pods))
    started = [float((await all_lines(cluster, launch, rank))[0]) for rank in range(4)]
    folder = tmp_path / "pods" / "job" / "1"
    ready = [json.loads((folder / f"job-1-{rank}" / "ready.json").read_text())["at"] for rank in range(4)]

    assert max(ready) <= min(started)


async def test_gpus_of_living_pods_are_disjoint_and_given_back(cluster: Cluster) -> None:
    def gpus(job: str, count: int, command: str) -> LaunchPlan:
        return plan(job, "sh", "-c", command, resources=Resources.parse({"nvidia.com/gpu": count}))

    show = "echo $CUDA_VISIBLE_DEVICES"
    async with watching(cluster) as seen:
        for job in ("one", "two"):
            await cluster.launch(gpus(job, 2, f"{show}; sleep 300"))
        await seen.phase("Running", "one-1-0", "two-1-0")
        with pytest.raises(LaunchRefused, match="needs 1 GPUs of node a, which has 0 free"):
            await cluster.launch(gpus("three", 1, show))
        held = [(await lines_from(cluster, gpus(job, 2, ""), 0, 1)).lines for job in ("one", "two")]
        await cluster.stop("one", 1, 1.0)
        await seen.ended("one-1-0")
        assert held == [("0,1",), ("2,3",)]
        assert await ended(cluster, gpus("four", 2, show)) == (0, "Completed", ["0,1"])


async def test_command_expands_names_of_the_environment(cluster: Cluster) -> None:
    launch = plan("job", "echo", "$(MINE) $(TUTTILAB_RANK) $$(MINE) $(NOBODY) $HOME", work={"env": {"MINE": "a b"}})

    assert await ended(cluster, launch) == (0, "Completed", ["a b 0 $(MINE) $(NOBODY) $HOME"])


@pytest.mark.feature("C09")
@pytest.mark.parametrize(
    ("command", "work", "end"),
    [
        (("nope", "x"), {}, (127, "CommandNotFound", ["tuttilab: nope: command not found"])),
        (("/",), {}, (126, "CommandNotExecutable", ["tuttilab: /: Permission denied"])),
        (("true",), {"workdir": "/nowhere"}, (1, "WorkdirMissing", ["tuttilab: working directory /nowhere is not there."])),
        (("true",), {"inputs": (Input("/no/file"),)}, (1, "InputMissing", ["tuttilab: input /no/file is not there."])),
        (
            ("true",),
            {"outputs": (Output("model", "model.pt"),)},
            (1, "OutputMissing", ["tuttilab: output model: there is no model.pt in RESULT_DIR"]),
        ),
        (("true",), {"outputs": (Output("model", "model.pt", is_optional=True),)}, (0, "Completed", [])),
        (("sh", "-c", "kill -KILL $$"), {}, (137, "Error", [])),
        (("sh", "-c", "printf 'no line feed'; exit 9"), {}, (9, "Error", ["no line feed"])),
        (("pwd",), {"workdir": "/usr"}, (0, "Completed", ["/usr"])),
    ],
)
async def test_ends(
    tmp_path: Path, cluster: Cluster, command: tuple[str, ...], work: dict[str, Any], end: tuple[int, str, list[str]]
) -> None:
    assert await ended(cluster, plan("job", *command, work=work, artifacts_url=tmp_path.as_uri())) == end


@pytest.mark.feature("C04", "J07")
async def test_code_and_inputs_are_there_and_outputs_are_kept(tmp_path: Path, cluster: Cluster) -> None:
    store = tmp_path / "artifacts of mine"
    code = keep(
        store,
        bundle(
            train_py="import os, shutil\nshutil.copy(os.environ['DATA_DIR'] + '/x/in.txt', os.environ['RESULT_DIR'] + '/out.txt')\n"
        ),
    )
    data = keep(store, b"some data")
    launch = plan(
        "job",
        "python",
        "$(TUTTILAB_CODE_DIR)/train.py",
        members=2,
        work={"code": code, "inputs": (Input("x/in.txt", data),), "outputs": (Output("text", "out.txt"),)},
        artifacts_url=store.as_uri(),
    )
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        members = await seen.ended("job-1-0", "job-1-1")

    assert [(pod.exit_code, pod.outputs) for pod in members] == [(0, {"text": data}), (0, {"text": data})]
    listed = tmp_path / "pods" / "job" / "1" / "job-1-0" / "result" / ".outputs.json"
    assert json.loads(listed.read_text()) == {"text": {"artifact": data, "size": 9, "sha256": data}}


async def test_corrupt_artifact_stops_the_pod_before_user_code(tmp_path: Path, cluster: Cluster) -> None:
    data = keep(tmp_path / "store", b"some data")
    (tmp_path / "store" / data[:2] / data).write_bytes(b"other data")
    launch = plan("job", "true", work={"inputs": (Input("in", data),)}, artifacts_url=(tmp_path / "store").as_uri())

    exit_code, reason, lines = await ended(cluster, launch)

    assert (exit_code, reason) == (1, "InputCorrupt")
    assert lines == [f"tuttilab: input in: artifact {data} has another content than its name says."]


async def test_memory_over_the_limit_ends_the_pod(cluster: Cluster) -> None:
    hog = "import os, time\nb = bytearray(200 * 2**20)\nprint('full', flush=True)\ntime.sleep(300)"
    launch = plan("job", "python", "-c", hog, resources=Resources.parse({"memory": "100Mi"}))

    exit_code, reason, lines = await ended(cluster, launch)

    assert (exit_code, reason) == (137, "OOMKilled")
    told = re.fullmatch(r"tuttilab: out of memory: used (\d+) MiB of the 100 MiB asked for\.", lines[-1])
    assert told is not None
    assert 100 < int(told[1]) < 300, "it may be seen while it grows"


@pytest.mark.feature("B24")
async def test_cpu_and_memory_of_a_pod_are_kept_over_time(cluster: Cluster) -> None:
    busy = "time.process_time() < 0.5 or time.time() < end"
    burn = f"import time\nkept = bytearray(50 * 2**20)\nend = time.time() + 3.5\nwhile {busy}: pass"
    launch = plan("job", "python", "-c", burn)

    assert await ended(cluster, launch) == (0, "Completed", [])

    usage = await cluster.usage("job", 1, "job-1-0")
    assert len(usage.points) >= 2
    assert usage.cpu_s > 0.2
    assert 50 * 2**20 <= usage.peak_bytes < 300 * 2**20
    assert max(size for _, _, size in usage.points) >= 50 * 2**20
    assert abs(usage.started_at - time.time()) < 60


async def test_pod_that_ends_at_once_was_measured_too(cluster: Cluster) -> None:
    await ended(cluster, plan("job", "python", "-c", "kept = bytearray(40 * 2**20)"))

    usage = await cluster.usage("job", 1, "job-1-0")

    assert len(usage.points) >= 1  # one, unless the machine was slow to start it
    assert max(size for _, _, size in usage.points) == usage.peak_bytes >= 40 * 2**20


async def test_forked_workers_that_share_memory_are_counted_once(cluster: Cluster) -> None:
    share = (
        "import os, time\nb = bytearray(60 * 2**20)\n"
        "for i in range(3):\n    if os.fork() == 0:\n        time.sleep(1.5); os._exit(0)\n"
        "for i in range(3): os.wait()"
    )
    launch = plan("job", "python", "-c", share, resources=Resources.parse({"memory": "150Mi"}))

    assert await ended(cluster, launch) == (0, "Completed", [])


async def test_large_log_is_capped_and_keeps_its_numbers(tmp_path: Path, cluster: Cluster) -> None:
    line = "x" * 92
    show = f"import sys\nfor i in range(1_000_000): sys.stdout.write('%07d {line}\\n' % i)"
    launch = plan("job", "python", "-c", show)
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await seen.ended("job-1-0")
    pod = tmp_path / "pods" / "job" / "1" / "job-1-0"
    kept = sum(file.stat().st_size for file in pod.glob("log*"))

    assert 48 * 2**20 < kept <= 64 * 2**20
    head = await lines_from(cluster, launch, 100_000, 3)
    assert (head.start, head.lines) == (100_000, tuple(f"{n:07d} {line}" for n in (100_000, 100_001, 100_002)))
    gap = await lines_from(cluster, launch, 300_000, 3)
    first = int(gap.lines[1][:7])
    dropped = (first - 16 * 2**20 // 101) * 101
    assert gap.start == first - 1
    assert gap.lines[0] == f"[... {dropped} bytes dropped: a pod keeps 64 MiB of log ...]"
    last = await lines_from(cluster, launch, 999_998, 10)
    assert (last.lines, last.is_end) == ((f"0999998 {line}", f"0999999 {line}"), True)
    for start in range(600_000, 900_000, 1000):
        chunk = await lines_from(cluster, launch, start, 10)
        assert chunk.lines[0][:7] == f"{start:07d}"


async def test_offered_endpoints_are_shown_and_reported(cluster: Cluster, control_plane: ControlPlane) -> None:
    offer = """sh -c 'echo "{\\"connect\\": \\"127.0.0.1:15002\\"}" > $TUTTILAB_ENDPOINTS; sleep 300'"""
    launch = plan("job", "sh", "-c", f"exec {offer}", report_url=control_plane.url)
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await seen.until(lambda pods: "job-1-0" in pods and bool(pods["job-1-0"].endpoints))
        await asyncio.to_thread(control_plane.wait_for, lambda: control_plane.last("job-1-0")["endpoints"])

        assert seen.pods["job-1-0"].endpoints == {"connect": "127.0.0.1:15002"}
        assert control_plane.last("job-1-0")["endpoints"] == {"connect": "127.0.0.1:15002"}


@pytest.mark.parametrize("members", [1, 2])
async def test_reports_tell_the_whole_life(place: Place, cluster: Cluster, control_plane: ControlPlane, members: int) -> None:
    until = "while [ ! -e go ]; do sleep 0.05; done"
    launch = plan("job", "sh", "-c", f"{until}; exit 5", members=members, report_url=control_plane.url)
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        for rank in range(members):
            await asyncio.to_thread(control_plane.wait_for_phase, f"job-1-{rank}", "Running")
        for rank in range(members):
            (place.folder / "pods" / "job" / "1" / f"job-1-{rank}" / "work" / "go").touch()
        states = await seen.ended(*(f"job-1-{rank}" for rank in range(members)))
        for rank in range(members):
            await asyncio.to_thread(control_plane.wait_for_phase, f"job-1-{rank}", "Ended")
        if members > 1:
            await seen.ended("job-1-master")

    for rank, state in enumerate(states):
        told = control_plane.phases(state.name)
        # A report tells the newest state: one that lasts no longer than the report before it may be passed over.
        assert told == [phase for phase in ("Pending", "Ready", "Running", "Ended") if phase in told]
        assert told[-2:] == ["Running", "Ended"]
        assert control_plane.last(state.name) == {
            "pod": state.name,
            "rank": rank,
            "uid": state.uid,
            "phase": "Ended",
            "exit_code": 5,
            "reason": "Error",
            "endpoints": {},
            "outputs": {},
        }
    numbers = [report["seq"] for report in control_plane.reports]
    assert numbers == list(range(1, len(numbers) + 1))
    assert {(report["job_id"], report["attempt"], report["epoch"]) for report in control_plane.reports} == {("job", 1, 1)}


async def test_the_log_of_a_pod_that_is_being_started_has_not_ended(place: Place, tmp_path: Path) -> None:
    """Its folder is there and its lock is not taken yet: whoever followed the log would never see a line."""
    cluster = place.open()
    await cluster.lead(1)
    (tmp_path / "pods" / "job" / "1" / "job-1-0").mkdir(parents=True)

    assert not (await cluster.logs("job", 1, "job-1-0", 0, 10)).is_end
