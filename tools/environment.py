"""Create .venv and install what lock.txt says and then the project, and show how far it is.

Called by tools/env.sh with the keys to remember when all went well: of the installation, or an empty one when that is done, and of
the panel. Runs on a bare Python: standard library only. uv installs, which it is itself installed for with pip and its hash; where
that cannot be, or with TUTTILAB_INSTALLER=pip, pip installs the same.
"""

import ast
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tools import locked

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PLAIN_LINE_EVERY_S = 15.0
LOG_TAIL_LINES = 20
PREPARE_SPARK_S = 300.0
# What the installer's last words mean, and what to do about it. Hosts and certificates come before what follows from them.
REMEDIES = (
    ("No space left on device", "The disk is full: free about 6 GB here, in the home folder and in the temporary folder."),
    ("CERTIFICATE_VERIFY_FAILED|peer certificate", "A certificate was refused: point PIP_CERT at those that your network uses."),
    ("hash mismatch|do not match the hashes", "The index has another file than the tested one: ask who keeps it, or try another."),
    (
        "connection|dns error|error sending|resolution|timed out|timeout|ProxyError",
        "The package index was not reached: check the network, and PIP_INDEX_URL if you have an index of your own.",
    ),
    (
        "No matching distribution found|No solution found|no usable wheels",
        "The package index lacks a version that lock.txt names: try Python 3.11 to 3.13, or another index.",
    ),
)
# How the lines of pip and uv begin that say what they do.
VERBS = "Resolved|Collecting|Downloading|Downloaded|Using cached|Building|Built|Prepared|Uninstalled|Installed|Installing"
# pip's settings, and what uv calls them. Its own, where they are set, come first.
SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "no-cache-dir": "UV_NO_CACHE",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}

# An editable install puts no data files: what a wheel copies is linked, so Lab sees each new build.
LINKS = {
    "share/jupyter/labextensions/@tuttilab/labextension": "labextension/dist",
    "etc/jupyter/jupyter_server_config.d/tuttilab.json": "jupyter_ext/etc/tuttilab.json",
}


def main(key: str, panel_key: str) -> int:
    began = time.monotonic()
    if key:
        if not (create(VENV) and install(VENV, locked.LOCK)):
            return 1
        (VENV / "install.key").write_text(key + "\n", encoding="utf-8")
    with prepare_spark(VENV) if key else nullcontext():
        if not build_panel(VENV):
            return 1
    (VENV / "panel.key").write_text(panel_key + "\n", encoding="utf-8")
    say(f"Environment ready in .venv after {time.monotonic() - began:.0f} s")
    return 0


def create(venv: Path) -> bool:
    if has_working_python(venv):
        return True
    say(f"Creating {venv.name} with Python {sys.version.split()[0]}")
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], capture_output=True, text=True)
    if made.returncode != 0:
        say(made.stdout + made.stderr)
        say("The environment could not be created. Debian: apt-get install python3-venv; or name another PYTHON=.")
    return made.returncode == 0


def has_working_python(venv: Path) -> bool:
    python = venv / "bin" / "python"
    check = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    return python.exists() and subprocess.run([python, "-c", check], capture_output=True).returncode == 0


def install(venv: Path, requirements: Path, uv: Path | None = None) -> bool:
    """What this requirements file says, and the project. Says what went wrong and what to do when it is False."""
    say("Installing tuttilab and what its demo and tests use: the first time a minute or two, 1 GB to fetch, 4 GB on disk")
    log = venv / "install.log"
    log.write_bytes(b"")
    with tempfile.TemporaryDirectory() as scratch:
        uv = uv or provide_uv(venv, Path(scratch), log)
        steps = with_uv(uv, venv, requirements, Path(scratch)) if uv else with_pip(venv, requirements, Path(scratch))
        environment = uv_environment(venv) if uv else dict(os.environ)
        if all(run(step, environment, log) for step in steps):
            return True
    explain_failure(log)
    return False


def provide_uv(venv: Path, scratch: Path, log: Path) -> Path | None:
    """uv in the version of the lock; None where pip has to do."""
    if os.environ.get("TUTTILAB_INSTALLER") == "pip":
        return None
    lock = locked.LOCK.read_text(encoding="utf-8")
    uv = venv / "bin" / "uv"
    version = next(entry.version for entry in locked.entries(lock) if entry.name == "uv")
    if not is_version(uv, version):
        wanted = written(scratch / "uv.txt", locked.excerpt(lock, "uv"))
        run([*pip(venv), "--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", wanted], dict(os.environ), log)
    if is_version(uv, version):
        return uv
    say("uv cannot be had for this platform or from this index: pip installs the same, which takes longer")
    return None


def is_version(uv: Path, version: str) -> bool:
    try:
        told = subprocess.run([uv, "--version"], capture_output=True, text=True).stdout
    except OSError:
        return False
    return told.split()[1:2] == [version]


def with_uv(uv: Path, venv: Path, requirements: Path, scratch: Path) -> list[list[str]]:
    # A requirements file has all dependencies. Looked up once more, PySpark would be fetched twice and built anew each time.
    base = [str(uv), "pip", "install", "--python", str(venv / "bin" / "python"), "--no-deps", "--no-build-isolation"]
    text = requirements.read_text(encoding="utf-8")
    builder = written(scratch / "builder.txt", locked.excerpt(text, "setuptools"))
    # Where Python may not keep what it compiles, it would compile each module at each start.
    compiled = ["--compile-bytecode"] if sys.dont_write_bytecode else []
    return [
        [*base, "--require-hashes", "-r", builder],
        [*base, "--require-hashes", *compiled, "-r", str(requirements)],
        [*base, "--reinstall-package", "tuttilab", "--editable", "."],
    ]


def with_pip(venv: Path, requirements: Path, scratch: Path) -> list[list[str]]:
    base = [*pip(venv), "--no-deps", "--no-build-isolation", "--use-pep517"]
    text = requirements.read_text(encoding="utf-8")
    builder = written(scratch / "builder.txt", locked.excerpt(text, "setuptools"))
    others = written(scratch / "others.txt", locked.excerpt(text, "uv", but=True))
    return [
        [*base, "--require-hashes", "-r", builder],
        [*base, "--require-hashes", "-r", others],
        [*base, "--editable", "."],
    ]


def pip(venv: Path) -> list[str]:
    python = str(venv / "bin" / "python")
    return [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]


def written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def uv_environment(venv: Path) -> dict[str, str]:
    """This environment, with what pip is told about indexes, certificates and proxies told to uv as well."""
    environment = dict(os.environ, UV_PYTHON_DOWNLOADS="never")
    command = [str(venv / "bin" / "python"), "-m", "pip", "config", "list"]
    settings = pip_settings(subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout)
    for name, value in as_uv(settings).items():
        environment.setdefault(name, value)
    if "SSL_CERT_FILE" not in environment and ssl.get_default_verify_paths().cafile:
        # As a newer pip does: the machine's own certificates.
        environment.setdefault("UV_SYSTEM_CERTS", "true")
    if "UV_CACHE_DIR" not in environment and not can_keep(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()):
        environment.setdefault("UV_NO_CACHE", "true")
    return environment


def pip_settings(listing: str) -> dict[str, str]:
    """What `pip config list` says, by name. The environment comes first, then the section for installing, then the general."""
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for name, value in re.findall(rf"^{section}\.([\w-]+)=(.*)$", listing, re.MULTILINE):
            found[name] = str(ast.literal_eval(value)).strip()
    return found


def as_uv(settings: dict[str, str]) -> dict[str, str]:
    told = {SETTINGS[name]: value for name, value in settings.items() if name in SETTINGS and value}
    for flag in ("UV_NO_INDEX", "UV_NO_CACHE"):
        if flag in told:
            told[flag] = "false" if told[flag].lower() in ("0", "no", "off", "false") else "true"
    for several in ("UV_INDEX", "UV_INSECURE_HOST"):
        if several in told:
            told[several] = " ".join(told[several].split())
    if "UV_INDEX" in told:
        # As pip does: the version may come from any of the indexes. What came is held to its hash.
        told["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if "UV_FIND_LINKS" in told:
        # pip overlooks a folder that is not there, uv does not.
        places = [place for place in told["UV_FIND_LINKS"].split() if "://" in place or Path(place).expanduser().exists()]
        told["UV_FIND_LINKS"] = ",".join(places)
    if "ALL_PROXY" in told:
        told |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), told["ALL_PROXY"])
    return {name: value for name, value in told.items() if value}


def can_keep(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def build_panel(venv: Path) -> bool:
    say("Building the panel of JupyterLab: the first time half a minute, 60 MB to fetch")
    command = [str(venv / "bin" / "python"), str(ROOT / "labextension" / "build.py")]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        say(done.stdout + done.stderr)
        say("The panel could not be built; all else is installed. Then run the same command again.")
        return False
    for place, source in LINKS.items():
        link = venv / place
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() or link.is_file():
            link.unlink()
        elif link.is_dir():
            shutil.rmtree(link)
        link.symlink_to(ROOT / source)
    return True


@contextmanager
def prepare_spark(venv: Path) -> Iterator[None]:
    """Beside what is done meanwhile. Without it sessions start all the same, only slower."""
    command = [str(venv / "bin" / "tuttilab"), "spark", "prepare"]
    preparing = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield
        say("Loading Spark's classes, so that sessions start in half the time")
        said, _ = preparing.communicate(timeout=PREPARE_SPARK_S)
        if preparing.returncode != 0:
            say(said.decode(errors="replace").strip())
            say("Sessions will start slower; `tuttilab spark prepare` tries it again.")
    except subprocess.TimeoutExpired:
        say("Spark's classes were not loaded in time: sessions will start slower; `tuttilab spark prepare` tries it again.")
    finally:
        if preparing.poll() is None:
            preparing.terminate()
            preparing.wait()


def run(command: list[str], environment: dict[str, str], log: Path) -> bool:
    with log.open("ab") as out:
        start = out.tell()
        installer = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            show_progress(installer, log, start)
        except BaseException:
            installer.terminate()
            raise
    return installer.wait() == 0


def show_progress(installer: "subprocess.Popen[bytes]", log: Path, start: int) -> None:
    """One line that turns on a terminal; elsewhere a plain line now and then."""
    on_terminal = sys.stdout.isatty() and os.environ.get("CI") != "true"
    began = said_at = time.monotonic()
    while installer.poll() is None:
        time.sleep(0.1)
        now = time.monotonic()
        if on_terminal:
            turn = "|/-\\"[int(now * 5) % 4]
            print(f"\r  {turn} {now - began:4.0f} s  {doing_now(read(log, start)):<80.80}", end="", flush=True)
        elif now - said_at >= PLAIN_LINE_EVERY_S:
            said_at = now
            say(f"  {now - began:4.0f} s  {doing_now(read(log, start))}")
    if on_terminal:
        print("\r" + " " * 94 + "\r", end="", flush=True)


def doing_now(log: str) -> str:
    """The installer's step in a few words: `Building pyspark==4.3.0`, `Downloading polars, pyarrow`."""
    steps = re.findall(rf"^ *({VERBS}) (.*)$", log, re.MULTILINE)
    if not steps:
        return "starting"
    verb, rest = steps[-1]
    if verb in ("Prepared", "Uninstalled", "Installing"):
        return "Installing the packages"
    if verb == "Installed":
        return "Compiling the packages"
    # uv does several things at a time and says when each begins and ends, pip one thing after another.
    for doing, done in (("Downloading", "Downloaded"), ("Building", "Built")):
        ended = {what.split()[0] for word, what in steps if word == done}
        open_ones = list(dict.fromkeys(what for word, what in steps if word == doing and what.split()[0] not in ended))
        if ended and open_ones:
            return f"{doing} {', '.join(open_ones)}"
    return "Fetching the packages" if verb in ("Resolved", "Downloaded", "Built") else f"{verb} {rest}"


def explain_failure(log: Path) -> None:
    text = read(log)
    tail = text.splitlines()[-LOG_TAIL_LINES:]
    remedy = next((do for sign, do in REMEDIES if re.search(sign, text, re.IGNORECASE)), "See the end of the log above.")
    say("\n".join([f"The installation failed. The end of {log.relative_to(ROOT)}:", *("  " + line for line in tail)]))
    say(f"{remedy} Then run the same command again: it goes on from what was fetched.")


def read(log: Path, start: int = 0) -> str:
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode("utf-8", errors="replace")


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], sys.argv[2]))
    except KeyboardInterrupt:
        say("\nInterrupted. Run the same command again to go on.")
        sys.exit(130)
