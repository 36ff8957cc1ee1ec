"""Pods that run as the users who own their jobs: two real users, and what neither can do to the other, to root, or to a sidecar."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.contract.clusters import Place, all_lines, first_lines, plan, watching
from tests.integration.local.conftest import LEASE_S, left_of
from tests.integration.local.test_faults import keeper_of, pid_of
from tests.strangers import KILLER
from tests.unix_accounts import Accounts, open_folder
from tuttilab.scheduler.clusters.base import Cluster, LaunchPlan, PodState
from tuttilab.scheduler.clusters.local.owners import Owners
from tuttilab.scheduler.domain.accounts import ProxyUser
from tuttilab.scheduler.domain.errors import EnvironmentProblem, LaunchRefused
from tuttilab.scheduler.domain.model import Output
from tuttilab.scheduler.domain.resources import Resources
from tuttilab.sidecar import records

pytestmark = pytest.mark.tier("users")

SHOW = "import json, os; print(json.dumps([os.getresuid(), os.getresgid(), os.getgroups(), os.getcwd(), dict(os.environ)]))"
# Tries everything on what it is given, and prints what was not refused.
PROBE = """
import ctypes, errno, json, os, signal, sys
given = json.load(open(sys.argv[1]))
libc = ctypes.CDLL(None, use_errno=True)
done = []
def attempt(what, call):
    try:
        call()
    except PermissionError:
        return
    except OSError as error:
        done.append(f"{what}: {error}")
        return
    done.append(what)
def attach(pid):
    if libc.ptrace(16, pid, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
for path in given["paths"]:
    attempt("reads " + path, lambda: os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1))
    attempt("writes " + path, lambda: open(path + "/x" if os.path.isdir(path) else path, "ab"))
    attempt("removes " + path, lambda: os.rmdir(path) if os.path.isdir(path) else os.unlink(path))
    attempt("moves " + path, lambda: os.rename(path, path + ".away"))
    attempt("opens up " + path, lambda: os.chmod(path, 0o777))
for pid in given["pids"]:
    attempt(f"attaches to {pid}", lambda: attach(pid))
    for name in ("environ", "mem", "maps", "fd/0", "cwd/plan.json"):
        attempt(f"reads {name} of {pid}", lambda: open(f"/proc/{pid}/{name}", "rb").read(1))
    for number in (signal.SIGSTOP, signal.SIGKILL):
        attempt(f"signals {pid}", lambda: os.kill(pid, number))
print(json.dumps(done))
"""


@pytest.fixture
async def place(accounts: Accounts, tmp_path: Path) -> AsyncIterator[Place]:
    with open_folder() as folder:
        place = Place("local", tmp_path, owners=accounts.settings(folder), lease_s=LEASE_S, heartbeat_s=0.5)
        yield place
        await place.close()
        assert left_of(place.folder) == []


@pytest.fixture
def cluster(place: Place) -> Cluster:
    return place.open()


def python_plan(accounts: Accounts, job: str, owner: str, script: str, *arguments: str, **given: Any) -> LaunchPlan:
    return replace(plan(job, str(accounts.python), "-c", script, *arguments, **given), owner=owner)


async def printed(cluster: Cluster, launch: LaunchPlan) -> Any:
    """What it printed last, as JSON."""
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await seen.ended(launch.pods[-1].name)
        lines = await all_lines(cluster, launch)
    try:
        return json.loads(lines[-1])
    except (ValueError, IndexError):
        raise AssertionError(lines) from None


def folder_of(place: Place, launch: LaunchPlan) -> Path:
    return place.folder / "pods" / launch.job_id / "1" / launch.pods[-1].name


@pytest.mark.feature("N10")
async def test_pods_have_uid_groups_home_and_new_files_of_their_owner(place: Place, cluster: Cluster, accounts: Accounts) -> None:
    script = f"open('new', 'w'); open(os.environ['HOME'] + '/new-' + os.environ['USER'], 'w'); {SHOW}"
    for owner, account, groups in (("ann", accounts.ann, {accounts.team_gid}), ("bob", accounts.bob, set())):
        launch = python_plan(accounts, owner, owner, f"import os; {script}", work={"env": {"PATH": "/usr/bin:/bin"}})
        uids, gids, found, cwd, env = await printed(cluster, launch)

        uid = accounts.uid(account)
        gid = accounts.gid(account)
        assert (set(uids), set(gids)) == ({uid}, {gid})
        assert set(found) - {gid} == groups
        assert (env["HOME"], env["USER"], env["LOGNAME"]) == (str(accounts.homes / account), account, account)
        assert Path(cwd) == folder_of(place, launch) / "work"
        for new in (Path(cwd) / "new", accounts.homes / account / f"new-{account}"):
            about = new.stat()
            assert (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)) == (uid, gid, 0o600)


ETL = ProxyUser("etl", ("quant",), "nobody-has-this")


@pytest.mark.feature("J16")
async def test_pods_of_a_job_with_a_proxy_user_are_all_its_and_its_owner_cannot_reach_them(
    place: Place, cluster: Cluster, accounts: Accounts
) -> None:
    proxy = replace(ETL, account=accounts.bob)
    script = f"open('new', 'w'); open(os.environ['HOME'] + '/by-etl', 'w'); {SHOW}"
    launch = python_plan(
        accounts, "job", "ann", f"import os; {script}", work={"run_as": "etl", "env": {"PATH": "/usr/bin:/bin"}}, run_as=proxy
    )
    uids, gids, groups, cwd, env = await printed(cluster, launch)

    bob, gid = accounts.uid(accounts.bob), accounts.gid(accounts.bob)
    assert (set(uids), set(gids), set(groups) - {gid}) == ({bob}, {gid}, set())
    assert (env["HOME"], env["USER"]) == (str(accounts.homes / accounts.bob), accounts.bob)
    for new in (Path(cwd) / "new", accounts.homes / accounts.bob / "by-etl"):
        assert (new.stat().st_uid, stat.S_IMODE(new.stat().st_mode)) == (bob, 0o600)
    owners = {path.lstat().st_uid for path in (place.folder / "pods" / "job").rglob("*")}
    assert owners == {0, bob, accounts.uid(accounts.sidecar)}


@pytest.mark.feature("J16")
@pytest.mark.parametrize(
    ("account", "said"),
    [
        ("root", "the account root of proxy user etl has uid 0 and group 0, and jobs run as uid 1000 or above, never as root"),
        ("daemon", "the account daemon of proxy user etl has uid 1 and group 1, and jobs run as uid 1000 or above"),
        ("nobody-has-this", "proxy user etl has no account 'nobody-has-this' on this machine"),
        ("sidecar", "of proxy user etl has uid"),
        (None, "asks to run as 'etl', which proxy_users of tuttilab.yaml do not list any more"),
    ],
)
async def test_a_proxy_user_that_jobs_may_not_be_starts_nothing(
    place: Place, cluster: Cluster, accounts: Accounts, account: str | None, said: str
) -> None:
    name = accounts.sidecar if account == "sidecar" else account
    proxy = None if name is None else replace(ETL, account=name)
    with pytest.raises(LaunchRefused, match=said) as refused:
        await cluster.launch(python_plan(accounts, "job", "ann", SHOW, work={"run_as": "etl"}, run_as=proxy))

    assert refused.value.permanent
    assert not (place.folder / "pods" / "job").exists()


@pytest.mark.feature("J16")
async def test_a_cluster_that_runs_all_as_one_user_runs_nothing_as_a_proxy_user(tmp_path: Path, accounts: Accounts) -> None:
    place = Place("local", tmp_path)
    with pytest.raises(LaunchRefused, match="asks to run as 'etl', and this cluster runs all jobs as one user"):
        await place.open().launch(python_plan(accounts, "job", "ann", SHOW, work={"run_as": "etl"}, run_as=ETL))
    await place.close()


async def test_everything_of_a_pod_is_its_owners_or_the_sidecars_and_closed_to_others(
    place: Place, cluster: Cluster, accounts: Accounts
) -> None:
    launch = replace(plan("job", "sh", "-c", "echo a >$RESULT_DIR/a; echo said", members=2, secrets={"s": "x"}), owner="ann")
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await seen.ended("job-1-0", "job-1-1", "job-1-master")

    ann, watcher = accounts.uid(accounts.ann), accounts.uid(accounts.sidecar)
    found = {path: path.lstat() for path in (place.folder / "pods" / "job").rglob("*")}
    assert {about.st_uid for about in found.values()} == {0, ann, watcher}
    for path, about in found.items():
        mode = stat.S_IMODE(about.st_mode)
        is_watched = path.is_dir() and about.st_uid == watcher and path.name != "usage"
        # The owner passes through to what is theirs; nobody else has the group of a person.
        assert mode == (0o710 if is_watched else 0o700 if path.is_dir() else 0o600), path
        assert not is_watched or about.st_gid == accounts.gid(accounts.ann)
    assert found[folder_of(place, launch) / "log"].st_uid == watcher
    assert found[folder_of(place, launch) / "result" / "a"].st_uid == ann
    assert found[folder_of(place, launch) / "secrets" / "s"].st_uid == ann
    assert stat.S_IMODE((place.folder / "started").stat().st_mode) == 0o700
    assert stat.S_IMODE(place.folder.stat().st_mode) == stat.S_IMODE((place.folder / "pods").stat().st_mode) == 0o711


async def running(cluster: Cluster, launch: LaunchPlan, seen: Any) -> tuple[PodState, list[int]]:
    """A pod that runs, and the pids of its keeper, its sidecar and its main command."""
    await cluster.launch(launch)
    (pod,) = await seen.phase("Running", launch.pods[-1].name)
    sidecar = pid_of(pod)
    main = psutil.Process(sidecar).children()[0]
    return pod, [keeper_of(pod).pid, sidecar, main.pid]


@pytest.mark.feature("N10")
async def test_another_user_reads_changes_signals_and_traces_nothing_of_a_pod(
    place: Place, cluster: Cluster, accounts: Accounts
) -> None:
    victim = replace(
        plan("victim", "sh", "-c", "echo said; echo a >$RESULT_DIR/a; echo b >b; echo c >$DATA_DIR/c; sleep 300"), owner="ann"
    )
    async with watching(cluster) as seen:
        _, pids = await running(cluster, victim, seen)
        await first_lines(cluster, victim)
        paths = [place.folder / "epoch", place.folder / "started", place.folder / "pods", *(place.folder / "pods").rglob("*")]
        given = accounts.homes / "given"
        given.write_text(json.dumps({"paths": list(map(str, paths)), "pids": pids}))
        assert len(paths) > 20

        assert await printed(cluster, python_plan(accounts, "thief", "bob", PROBE, str(given))) == []
        assert seen.pods["victim-1-0"].phase == "Running"
        assert [path for path in paths if not path.exists()] == []


async def test_a_job_can_neither_read_nor_end_what_watches_it(place: Place, cluster: Cluster, accounts: Accounts) -> None:
    launch = replace(
        plan("job", "sh", "-c", 'while [ ! -e go ]; do sleep 0.05; done; exec $PYTHON -c "$PROBE" $GIVEN'), owner="ann"
    )
    given = accounts.homes / "given-own"
    env = {"PYTHON": str(accounts.python), "PROBE": PROBE, "GIVEN": str(given)}
    launch = replace(launch, work=replace(launch.work, env=env))
    async with watching(cluster) as seen:
        pod, (keeper, sidecar, main) = await running(cluster, launch, seen)
        assert {psutil.Process(pid).uids().real for pid in (keeper, sidecar)} == {accounts.uid(accounts.sidecar)}
        assert psutil.Process(main).uids() == (accounts.uid(accounts.ann),) * 3
        folder = folder_of(place, launch)
        paths = [*(path for path in folder.iterdir() if path.is_file()), folder, folder.parent, folder.parent.parent]
        assert folder / records.LOCK in paths
        assert folder / records.PLAN in paths
        given.write_text(json.dumps({"paths": list(map(str, paths)), "pids": [keeper, sidecar, os.getpid()]}))
        (folder / "work" / "go").touch()
        (ended,) = await seen.ended("job-1-0")

        assert (ended.exit_code, ended.reason, ended.uid) == (0, "Completed", pod.uid)
        assert json.loads((await all_lines(cluster, launch))[-1]) == []


async def test_who_would_kill_what_watches_it_unseen_cannot(place: Place, cluster: Cluster, accounts: Accounts) -> None:
    launch = python_plan(accounts, "job", "ann", KILLER)
    async with watching(cluster) as seen:
        pod, pids = await running(cluster, launch, seen)
        # It has no right to read whom to kill, and ends.
        await first_lines(cluster, launch)
        assert "PermissionError" in "\n".join((await first_lines(cluster, launch, 3)).lines)
        assert all(psutil.pid_exists(pid) for pid in pids)
        await cluster.stop("job", 1, 1.0)
        (ended,) = await seen.ended("job-1-0")
        assert (ended.reason, ended.uid) == ("Stopped", pod.uid)


@pytest.mark.feature("N10")
async def test_no_way_leads_from_a_job_to_root(place: Place, cluster: Cluster, accounts: Accounts) -> None:
    raised = accounts.homes / "raised"
    shutil.copy("/usr/bin/id", raised)
    raised.chmod(0o6755)
    script = f"""
import json, os, subprocess
done = []
for what, call in dict(
    setuid=lambda: os.setuid(0), setgid=lambda: os.setgid(0), setgroups=lambda: os.setgroups([0]),
    setresuid=lambda: os.setresuid(0, 0, 0), back=lambda: os.setuid({accounts.uid(accounts.sidecar)}),
).items():
    try:
        call()
        done.append(what)
    except PermissionError:
        pass
ids = [subprocess.run([{str(raised)!r}, option], capture_output=True, text=True).stdout.strip() for option in ("-u", "-g")]
print(json.dumps([done, ids]))
"""
    done, ids = await printed(cluster, python_plan(accounts, "job", "ann", script))

    assert (done, ids) == ([], [str(accounts.uid(accounts.ann)), str(accounts.gid(accounts.ann))])


@pytest.mark.parametrize(
    ("owner", "accounts_given", "said"),
    [
        ("nobody-has-this-name", {}, "has no account 'nobody-has-this-name' on this machine"),
        ("ann", {"ann": "no-such-account"}, r"has no account 'no-such-account' \(listed for ann\)"),
        ("root", {}, "never as root or a service"),
        ("daemon", {}, "never as root or a service"),
        ("ann", {"ann": "root"}, "never as root or a service"),
        ("a\0b", {}, "has no account"),
    ],
)
@pytest.mark.feature("N10")
async def test_an_owner_without_a_persons_account_is_refused(
    accounts: Accounts, tmp_path: Path, owner: str, accounts_given: dict[str, str], said: str
) -> None:
    with open_folder() as folder:
        place = Place("local", tmp_path, owners=accounts.settings(folder, accounts=accounts_given))
        cluster = place.open()

        with pytest.raises(LaunchRefused, match=said) as refused:
            await cluster.launch(replace(plan("job", "true"), owner=owner))

        assert refused.value.permanent
        assert list((place.folder / "pods").iterdir()) == []
        await place.close()


async def test_the_account_of_sidecars_is_no_owners(accounts: Accounts, tmp_path: Path) -> None:
    with open_folder() as folder:
        given = accounts.settings(folder, accounts={"ann": accounts.sidecar}, least_uid=1)
        place = Place("local", tmp_path, owners=given)

        with pytest.raises(LaunchRefused, match="never as root or a service"):
            await place.open().launch(plan("job", "true"))

        await place.close()


def test_a_machine_that_cannot_run_pods_as_their_owners_is_refused_at_the_start(accounts: Accounts, tmp_path: Path) -> None:
    with open_folder() as folder:
        state = folder / "state"

        def start(at: Path, **changes: Any) -> None:
            owners = Owners(accounts.settings(at, **changes), "here", state)
            owners.prepare(at / "here", at / "here" / "pods", at / "here" / "started", str(accounts.python))

        with pytest.raises(EnvironmentProblem, match=r"no account no-such-account for the sidecars; make it: `useradd --system"):
            start(folder, sidecar_user="no-such-account")
        with pytest.raises(EnvironmentProblem, match="sidecar_user root is root"):
            start(folder, sidecar_user="root")
        (folder / "closed").mkdir(mode=0o700)
        with pytest.raises(EnvironmentProblem, match=r"closed has mode 700 and belongs to uid 0.*name another `folder`"):
            start(folder / "closed")
        (folder / "anns").mkdir(mode=0o755)
        os.chown(folder / "anns", accounts.uid(accounts.ann), -1)
        with pytest.raises(EnvironmentProblem, match="every folder above it must be root's"):
            start(folder / "anns")
        assert not (folder / "anns" / "here").exists()
        (folder / "other" / "here").mkdir(parents=True, mode=0o755)
        (folder / "other" / "here" / "file").touch()
        with pytest.raises(EnvironmentProblem, match="has files of something else; name another `folder`"):
            start(folder / "other")
        assert stat.S_IMODE((folder / "other" / "here").stat().st_mode) == 0o755
        (folder / "python").symlink_to("/usr/bin/false")
        with pytest.raises(EnvironmentProblem, match=r"users cannot run .*python with .*name an interpreter under `python`"):
            start(folder, python=str(folder / "python"))
        start(folder)
        was, state = state, tmp_path
        with pytest.raises(EnvironmentProblem, match=f"has the pods of the control plane in {was}; name another `folder`"):
            start(folder)


@pytest.mark.parametrize("hides", [False, True])
async def test_memory_of_another_user_is_measured_even_if_it_hides_itself(
    cluster: Cluster, accounts: Accounts, hides: bool
) -> None:
    script = f"""
import ctypes, time
{"ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)" if hides else ""}
held = bytearray(200 * 2**20)
print("[1]", flush=True)
time.sleep(300)
"""
    launch = python_plan(accounts, "job", "ann", script, resources=Resources.parse({"cpu": 1, "memory": "100Mi"}))
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        (ended,) = await seen.ended("job-1-0")

    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")


# Hard links to what is not the owner's: a kernel that protects hard links would not let the job make them, so root does.


async def test_what_a_cell_displays_is_read_as_its_owner(place: Place, cluster: Cluster) -> None:
    launch = replace(plan("job", "sh", "-c", "echo '{}' >$RESULT_DIR/display.jsonl; sleep 300"), owner="ann")
    async with watching(cluster) as seen:
        await running(cluster, launch, seen)
        result = folder_of(place, launch) / "result"
        while not (await cluster.displays("job", 1, "job-1-0", 0)).lines:
            pass
        secret = place.folder / "secret"
        secret.write_text("of root\n")
        secret.chmod(0o600)
        (result / "display.jsonl").unlink()
        os.link(secret, result / "display.jsonl")

        assert (await cluster.displays("job", 1, "job-1-0", 0)).lines == ()


async def test_outputs_and_offers_are_read_as_their_owner(place: Place, cluster: Cluster, accounts: Accounts) -> None:
    work = {"outputs": (Output("log", "log"), Output("plan", "plan"))}
    launch = replace(plan("job", "sh", "-c", "while [ ! -e go ]; do sleep 0.05; done", work=work), owner="ann")
    async with watching(cluster) as seen:
        await running(cluster, launch, seen)
        folder = folder_of(place, launch)
        secret = folder / "secret.json"
        secret.write_text('{"stolen": "x"}')
        os.chown(secret, accounts.uid(accounts.sidecar), -1)
        secret.chmod(0o600)
        os.link(secret, folder / "offers" / "endpoints.json")
        os.link(folder / "log", folder / "result" / "log")
        (folder / "result" / "plan").symlink_to(folder / "plan.json")
        (folder / "work" / "go").touch()
        (ended,) = await seen.ended("job-1-0")
        lines = await all_lines(cluster, launch)

    assert (ended.reason, ended.outputs, ended.endpoints) == ("OutputLost", {}, {})
    assert "output log: log cannot be kept ([Errno 13] Permission denied" in lines[-1]
    assert "output plan: plan is not below RESULT_DIR" in lines[-1]


async def test_offers_of_an_owner_are_found(cluster: Cluster) -> None:
    offer = """sh -c 'echo "{\\"connect\\": \\"127.0.0.1:15002\\"}" > $TUTTILAB_ENDPOINTS; sleep 300'"""
    launch = replace(plan("job", "sh", "-c", offer), owner="bob")
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        await seen.until(lambda pods: bool(pods.get("job-1-0") and pods["job-1-0"].endpoints))

        assert seen.pods["job-1-0"].endpoints == {"connect": "127.0.0.1:15002"}


async def test_scripts_can_open_their_own_output(cluster: Cluster) -> None:
    launch = replace(plan("job", "sh", "-c", "echo one >/dev/stdout; echo two >/dev/stderr"), owner="ann")
    async with watching(cluster) as seen:
        await cluster.launch(launch)
        (ended,) = await seen.ended("job-1-0")

        assert (ended.exit_code, sorted(await all_lines(cluster, launch))) == (0, ["one", "two"])
