"""Create .venv and install the project with all that its demo and its tests need, and show how far it is.

Called by tools/env.sh with the keys to remember when all went well: of the installation, or an empty one when that is done, and of
the panel. Runs on a bare Python: standard library only.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOG = VENV / "install.log"
# Not kubernetes: nothing that `make` runs needs it yet.
EXTRAS = "spark,lab,scheduler,hub,tour,test"
PLAIN_LINE_EVERY_S = 15.0
LOG_TAIL_LINES = 20
# What pip's last words mean, and what to do about it.
REMEDIES = (
    ("No space left on device", "The disk is full: free about 3 GB here and in the temporary folder."),
    ("CERTIFICATE_VERIFY_FAILED", "A certificate was refused: point PIP_CERT at those that your network uses."),
    ("connection|resolution|timed out|timeout|ProxyError", "The package index was not reached: check the network."),
    ("No matching distribution found", "The package index has no fitting version: try Python 3.11, or another index."),
)


# An editable install puts no data files: what a wheel copies is linked, so Lab sees each new build.
LINKS = {
    "share/jupyter/labextensions/@tuttilab/labextension": "labextension/dist",
    "etc/jupyter/jupyter_server_config.d/tuttilab.json": "jupyter_ext/etc/tuttilab.json",
}


def main(key: str, panel_key: str) -> int:
    began = time.monotonic()
    if key and not install_packages(key):
        return 1
    if not build_panel(panel_key):
        return 1
    say(f"Environment ready in .venv after {time.monotonic() - began:.0f} s")
    return 0


def install_packages(key: str) -> bool:
    if not has_working_venv():
        say(f"Creating .venv with Python {sys.version.split()[0]}")
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], capture_output=True, text=True)
        if made.returncode != 0:
            say(made.stdout + made.stderr)
            say("The environment could not be created. Debian: apt-get install python3-venv; or name another PYTHON=.")
            return False
    say("Installing tuttilab and what its demo and tests use: the first time 2 to 6 minutes, 800 MB to fetch, 1.9 GB on disk")
    returncode = install()
    if returncode != 0:
        explain_failure()
        return False
    (VENV / "install.key").write_text(key + "\n", encoding="utf-8")
    return True


def build_panel(key: str) -> bool:
    say("Building the panel of JupyterLab: the first time half a minute, 60 MB to fetch")
    command = [str(VENV / "bin" / "python"), str(ROOT / "labextension" / "build.py")]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        say(done.stdout + done.stderr)
        say("The panel could not be built; all else is installed. Then run the same command again.")
        return False
    for place, source in LINKS.items():
        link = VENV / place
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() or link.is_file():
            link.unlink()
        elif link.is_dir():
            shutil.rmtree(link)
        link.symlink_to(ROOT / source)
    (VENV / "panel.key").write_text(key + "\n", encoding="utf-8")
    return True


def has_working_venv() -> bool:
    python = VENV / "bin" / "python"
    check = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    return python.exists() and subprocess.run([python, "-c", check], capture_output=True).returncode == 0


def install() -> int:
    command = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", "--editable", f".[{EXTRAS}]"]
    with LOG.open("w", encoding="utf-8") as log:
        pip = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            show_progress(pip)
        except BaseException:
            pip.terminate()
            raise
    return pip.wait()


def show_progress(pip: "subprocess.Popen[bytes]") -> None:
    """One line that turns on a terminal; elsewhere a plain line now and then."""
    on_terminal = sys.stdout.isatty() and os.environ.get("CI") != "true"
    began = said_at = time.monotonic()
    while pip.poll() is None:
        time.sleep(0.2)
        now = time.monotonic()
        if on_terminal:
            turn = "|/-\\"[int(now * 5) % 4]
            print(f"\r  {turn} {now - began:4.0f} s  {doing_now():<80.80}", end="", flush=True)
        elif now - said_at >= PLAIN_LINE_EVERY_S:
            said_at = now
            say(f"  {now - began:4.0f} s  {doing_now()}")
    if on_terminal:
        print("\r" + " " * 94 + "\r", end="", flush=True)


def doing_now() -> str:
    """Pip's newest step in a few words: `Downloading pyspark-4.3.0.tar.gz (430 MB)`."""
    text = LOG.read_text(encoding="utf-8", errors="replace")
    steps = re.findall(r"^ *((?:Collecting|Downloading|Using cached|Building wheel|Installing) .*)$", text, re.MULTILINE)
    if not steps:
        return "starting pip"
    step = str(steps[-1])
    return "Installing the packages" if step.startswith("Installing collected") else step


def explain_failure() -> None:
    text = LOG.read_text(encoding="utf-8", errors="replace")
    tail = text.splitlines()[-LOG_TAIL_LINES:]
    remedy = next((do for sign, do in REMEDIES if re.search(sign, text, re.IGNORECASE)), "See the end of the log above.")
    say("\n".join(["The installation failed. The end of .venv/install.log:", *("  " + line for line in tail)]))
    say(f"{remedy} Then run the same command again: it goes on from what was fetched.")


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], sys.argv[2]))
    except KeyboardInterrupt:
        say("\nInterrupted. Run the same command again to go on.")
        sys.exit(130)
