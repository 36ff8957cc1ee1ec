"""`%%submit` in a real kernel against a real control plane: values, names, errors, sizes, options."""

import re
import statistics
import time
from pathlib import Path

import pytest

from tests.e2e.magics.conftest import SMALL, ControlPlane, Kernel, Ran

pytestmark = pytest.mark.tier("local")


@pytest.mark.feature("M12")
def test_the_value_is_the_output_and_the_handle_is_bound(kernel: Kernel) -> None:
    kernel.run("import math\nx = 20\ndef double(n):\n    return n * 2 + math.floor(offset)\noffset = 1.5")
    ran = kernel.run(f"%%submit job {SMALL} --out y\ny = double(x)\nprint('from the job')\ny + 1")
    assert ran.status == "ok", ran.error
    assert ran.value == "42"
    assert len(ran.displays) == 1
    shown = r"sends: double \d+ B, x 5 B\njob \w{8} 'job': Succeeded \(\d+ s\)\n  \| from the job"
    assert re.fullmatch(rf"{shown}\nback in the notebook: y \(int, 5 B\)", ran.last_text)
    assert kernel.value("y") == "41"
    assert kernel.value("job.status, job.result()") == "('Succeeded', 42)"
    assert kernel.run("print(job.logs())").stdout == "from the job\n"
    assert kernel.value("await job") == "42"


def test_the_same_cell_execution_delivered_twice_makes_one_job(kernel: Kernel) -> None:
    again = f"get_ipython().run_cell_magic('submit', 'NAME --name twin --detach {SMALL}', '1')"
    begin = "from tuttilab.magics.submission.send import EXECUTIONS; EXECUTIONS.begin()"
    ran = kernel.run("\n".join([begin, again.replace("NAME", "a"), begin, again.replace("NAME", "a2")]))
    assert ran.status == "ok", ran.error
    # The variable is a label of the job, so another one is another submit; the same one is the same job.
    assert kernel.value("a.id == a2.id") == "False"
    kernel.run("\n".join([begin, again.replace("NAME", "b"), "first = b", begin, again.replace("NAME", "b")]))
    assert kernel.value("first.id == b.id") == "True"


def test_a_handle_stays_in_its_notebook(kernel: Kernel) -> None:
    kernel.run(f"%%submit held --detach {SMALL}\n1")
    error = kernel.run("%%submit\nheld.id").error
    assert "held (JobHandle) cannot travel to a job: a JobHandle stays in its notebook, send its value instead" in error


def test_a_semicolon_silences_the_value(kernel: Kernel) -> None:
    ran = kernel.run(f"%%submit {SMALL}\n1 + 1;")
    assert (ran.status, ran.value) == ("ok", None)


@pytest.mark.feature("M08", "B15")
def test_a_failed_cell_raises_with_its_own_lines_and_keeps_the_handle(kernel: Kernel) -> None:
    defined = kernel.run("def ratio(a, b):\n    return a / b")
    ran = kernel.run(f"%%submit job {SMALL}\ntop = 1\nratio(top, 0)")
    assert (ran.status, ran.ename) == ("error", "RemoteError")
    assert len(ran.error.encode()) < 1024
    assert ran.error.splitlines()[:-1] == [
        "ZeroDivisionError: division by zero",
        f"<%%submit In[{ran.number}]>, line 3",
        "      2 top = 1",
        "-->   3 ratio(top, 0)",
        f"<In[{defined.number}]>, line 2, in ratio",
        "      1 def ratio(a, b):",
        "-->   2     return a / b",
    ]
    assert kernel.value("job.status") == "'Failed'"
    again = kernel.run("job.result()")
    assert again.ename == "RemoteError"
    assert "Traceback (most recent call last):" in kernel.run("%tb").error


@pytest.mark.feature("B15")
def test_functions_of_two_cells_show_their_own_cell_and_lines_also_in_the_log(kernel: Kernel) -> None:
    first = kernel.run("class Scale:\n    def __init__(self, by): self.by = by\n    def of(self, n):\n        return n / self.by")
    second = kernel.run("scale = Scale(0)\nshares = lambda ns: [scale.of(n) for n in ns]")
    ran = kernel.run(f"%%submit job {SMALL}\nshares([1, 2])")
    assert ran.ename == "RemoteError"
    lines = ran.error.splitlines()
    assert lines[lines.index(f"<In[{second.number}]>, line 2, in <lambda>") + 1] == (
        "-->   2 shares = lambda ns: [scale.of(n) for n in ns]"
    )
    assert lines[-5:-1] == [
        f"<In[{first.number}]>, line 4, in of",
        "      2     def __init__(self, by): self.by = by",
        "      3     def of(self, n):",
        "-->   4         return n / self.by",
    ]
    log = kernel.run("print(job.logs())").stdout
    assert f'File "<In[{first.number}]>", line 4, in of\n    return n / self.by\n' in log


def test_what_cannot_travel_is_named(kernel: Kernel) -> None:
    kernel.run("import sqlite3\nconn = sqlite3.connect(':memory:')")
    ran = kernel.run(f"%%submit {SMALL}\nconn.execute('select 1')")
    assert ran.error == (
        "BadInput: conn (Connection) cannot travel to a job: cannot pickle 'sqlite3.Connection' object; "
        "make it inside the cell instead, or name what to send with --in."
    )


def test_too_much_is_refused_in_a_sentence_before_anything_is_sent(kernel: Kernel, control: ControlPlane) -> None:
    kernel.run("import numpy as np\nbig = np.zeros(300 * 2**20 // 8)")
    before = len(control.client().jobs(all=True).jobs)
    ran = kernel.run("%%submit\nbig.sum()")
    assert ran.error.startswith("TooLarge: This cell would send 315 MB (big 315 MB), and at most 200 MiB may travel with a job;")
    assert "\n" not in ran.error
    assert len(control.client().jobs(all=True).jobs) == before


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("%%submit\n   \n", "%%submit: the cell is empty; write what the job shall run below the first line."),
        ("%%submit --cron x\n1", "%%submit --cron comes in a later version; submit the cell when you need it."),
        ("%%submit --pip x\n1", "%%submit --pip comes in a later version; use a --python or an --image that has the package."),
        ("%%submit --template t\n1", "%%submit --template comes in a later version; give the options that you need on the line."),
        ("%%submit --param a=1\n1", "%%submit --param comes in a later version; set a variable in the notebook,"),
        ("%%submit --worker 2\n1", "%%submit: unknown option --worker; did you mean --workers?"),
        ("%%submit --wait --detach\n1", "%%submit: --wait and --detach exclude each other; give one of them."),
        ("%%submit --map xs --out y\n1", "%%submit: --out names variables of one job, and --map makes many;"),
        ("%%submit --cpus x\n1", "--cpus: 'x' is not an amount; expected cores such as 2, 0.5 or 1500m."),
        ("%%submit --map nothing\n1", "%%submit: --map names nothing, which this notebook does not define."),
        ("%%submit --files nowhere.py\n1", "--files nowhere.py: there is no such file or folder here"),
        ("%%submit\nx = 1\n!ls", "%%submit: line 3 (!ls) is notebook syntax, and a job runs plain Python;"),
        ("%%submit\n1 / 0\n%debug", "%%submit: line 3 (%debug) needs a keyboard, and a job has none: run the cell here, without"),
        ("%%submit --queue nowhere\n1", "nowhere"),
        ("%submit", "%submit NOTEBOOK.ipynb [-p NAME=VALUE] runs a notebook file as a job; to run the code of a cell, write"),
        ("%submit train.py", "%submit: 'train.py' is no notebook; expected a file that ends with .ipynb."),
        ("%submit nowhere.ipynb", "nowhere.ipynb: the notebook cannot be read (No such file or directory); give the path of an"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_line_or_the_cell_is_one_sentence(kernel: Kernel, cell: str, sentence: str) -> None:
    ran = kernel.run(cell)
    assert ran.status == "error"
    assert sentence in ran.error
    assert len(ran.error.strip().splitlines()) == 1
    assert len(ran.error.encode()) < 1024


def test_a_debugger_in_a_job_is_one_sentence_before_it_is_queued_and_one_at_its_line(kernel: Kernel) -> None:
    kernel.run("def check(x):\n    if x > 2:\n        breakpoint()\n    return x")
    ran = kernel.run(f"%%submit {SMALL}\nvalues = [1, 5]\n[check(x) for x in values]", timeout=150)
    assert ran.error.splitlines()[0] == (
        "RuntimeError: breakpoint() in a job has no keyboard to stop at: run the cell in the notebook, without its %%submit line, "
        "to step through it, or pass over it with --env PYTHONBREAKPOINT=0."
    )
    assert "-->   3         breakpoint()" in ran.error
    assert len(ran.error.encode()) < 1024
    first = str(ran.displays[0]["text/plain"]).splitlines()
    assert first[1] == (
        f"a job has no keyboard and fails where it comes to breakpoint() in line 3 of <In[{ran.number - 1}]>: run the cell here, "
        "without its %%submit line, to step through it, or pass over it with --env PYTHONBREAKPOINT=0."
    )
    assert f"<div>{first[0]}</div><div>a job has no keyboard" in ran.displays[0]["text/html"]
    over = kernel.run(f"%%submit --env PYTHONBREAKPOINT=0 {SMALL}\n[check(x) for x in [1, 5]]")
    assert (over.status, over.value) == ("ok", "[1, 5]"), over.error
    assert "keyboard" not in over.text
    unreached = kernel.run(f"%%submit {SMALL}\nimport pdb\nif len('ab') > 5:\n    pdb.set_trace()\n'end'")
    assert (unreached.status, unreached.value) == ("ok", "'end'"), unreached.error
    assert "fails where it comes to pdb.set_trace() in line 4: run the cell here" in unreached.last_text


def test_a_question_in_a_job_is_named_before_and_answered_by_an_error(kernel: Kernel) -> None:
    dry = kernel.run(f"%%submit --dry-run {SMALL}\nname = input('who? ')").text
    assert (
        "a job has no keyboard and fails where it comes to input() in line 2: assign the answer to a variable in a cell before"
        in dry
    )
    ran = kernel.run(f"%%submit {SMALL}\nname = input('who? ')", timeout=150)
    assert ran.error.startswith("EOFError: input() in a job has nobody to ask: assign the answer to a variable in a cell before")
    assert "fails where it comes to input() in line 2" in ran.last_text


def test_a_syntax_error_is_shown_as_a_local_one(kernel: Kernel) -> None:
    ran = kernel.run("%%submit\nok = 1\nok +")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", ran.error)
    assert f"<%%submit In[{ran.number}]>:3" in plain
    assert "SyntaxError: invalid syntax" in plain
    assert "interactiveshell.py" not in plain


@pytest.mark.parametrize(
    ("line", "what"), [("return 5", "'return' outside function"), ("for x in y: yield x", "'yield' outside function")]
)
def test_an_error_of_the_compiler_alone_shows_its_line_too(kernel: Kernel, line: str, what: str) -> None:
    ran = kernel.run(f"%%submit\nok = 1\n{line}")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", ran.error)
    assert f"SyntaxError: {what}" in plain
    assert line in plain, plain


def test_a_dry_run_submits_nothing(kernel: Kernel, control: ControlPlane) -> None:
    before = len(control.client().jobs(all=True).jobs)
    ran = kernel.run(f"%%submit --dry-run {SMALL}\n1")
    assert ran.text.startswith("starts: ")
    assert len(control.client().jobs(all=True).jobs) == before


@pytest.mark.feature("M12")
def test_files_are_importable_and_readable(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "helper_of_test.py").write_text("answer = 42")
    ran = kernel.run(f"%%submit --files {tmp_path}/helper_of_test.py {SMALL}\nimport helper_of_test\nhelper_of_test.answer")
    assert ran.value == "42", ran.error


def test_a_gang_gives_the_value_of_rank_0_and_of_any_rank_asked_for(kernel: Kernel) -> None:
    ran = kernel.run(f"%%submit gang --workers 2 --cpus 100m {SMALL}\nimport os\nint(os.environ['TUTTILAB_RANK']) * 10 + 1")
    assert ran.value == "1", ran.error
    assert kernel.value("gang.result(rank=1)") == "11"
    assert "has no rank 5" in kernel.run("gang.result(rank=5)").error


@pytest.mark.feature("M12")
def test_a_detached_cell_returns_at_once_and_after_waits_for_it(kernel: Kernel, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    cell = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists():\n    time.sleep(0.1)\n'first'"
    ran = kernel.run(f"%%submit first --detach --cpus 100m {SMALL}\n{cell}")
    assert "submitted; `%attach" in ran.text
    gate.touch()
    ran = kernel.run(f"%%submit second --after first --cpus 100m {SMALL}\n'second'")
    assert ran.value == "'second'", ran.error
    assert kernel.value("first.status") == "'Succeeded'"


@pytest.mark.feature("M10")
def test_progress_is_one_area_with_at_most_two_updates_a_second(kernel: Kernel) -> None:
    cell = "import time\nfor i in range(40):\n    print('line', i)\n    time.sleep(0.1)"
    ran = kernel.run(f"%%submit {SMALL}\n{cell}")
    assert len(ran.displays) == 1
    times = [at for at, _ in ran.updates]
    assert len(times) >= 4
    # The last one is the end, which is shown whatever the pace. Two may come close where the kernel had to wait for its turn.
    assert len(times) - 1 <= 2 * (times[-2] - times[0]) + 2
    assert "line 39" in ran.last_text


@pytest.mark.feature("B21")
def test_a_progress_bar_is_live_in_the_cell_and_keeps_its_colours(kernel: Kernel) -> None:
    bar = "print(f'\\r\\x1b[32m{i:2d} of 40\\x1b[0m', end='')"
    cell = f"import time\nprint('begin')\nfor i in range(41):\n    {bar}\n    time.sleep(0.1)\nprint()\ni"
    ran = kernel.run(f"%%submit bars {SMALL}\n{cell}")
    assert ran.status == "ok", ran.error
    states = [re.findall(r"(\d+) of 40", str(data["text/plain"])) for _, data in ran.updates]
    assert all(len(found) <= 1 for found in states), "each state replaces the one before it"
    assert len({found[0] for found in states if found}) > 2
    assert ran.last_text.endswith("  | begin\n  | 40 of 40")
    assert '<span style="color:#00a250">40 of 40</span>' in ran.updates[-1][1]["text/html"]
    assert '<span style="color:#00a250">40 of 40</span>' in kernel.run("bars.logs()").html


@pytest.mark.feature("B21")
def test_most_states_of_a_bar_are_in_the_cell_within_a_second(kernel: Kernel) -> None:
    loop = "for _ in range(40):\n    print(f'\\r{time.time():.2f}', end='')\n    time.sleep(0.1)"
    sent = kernel.send(f"%%submit clock {SMALL}\nimport time\n{loop}")
    ages: dict[str, float] = {}

    def look(ran: Ran) -> bool:
        found = re.search(r"\| (\d{10}\.\d\d)", str(ran.updates[-1][1]["text/plain"])) if ran.updates else None
        if found:
            ages.setdefault(found[1], time.time() - float(found[1]))
        return False

    kernel.gather(sent, until=look)
    assert len(ages) > 5
    assert statistics.median(ages.values()) < 1.0


@pytest.mark.feature("B21")
def test_a_gang_shows_the_newest_line_of_each_rank(kernel: Kernel) -> None:
    bar = "for i in range(30):\n    print(f'\\rrank {rank} at {i}', end='')\n    time.sleep(0.1)"
    cell = f"import os, time\nrank = os.environ['TUTTILAB_RANK']\n{bar}"
    ran = kernel.run(f"%%submit --workers 2 --cpus 100m {SMALL}\n{cell}")
    assert ran.status == "ok", ran.error
    assert any(re.search(r"\[0\] rank 0 at \d+\n.*\[1\] rank 1 at \d+\n", str(data["text/plain"])) for _, data in ran.updates)
    assert re.search(r"\[0\] rank 0 at 29\n.*\[1\] rank 1 at 29\n", ran.last_text)
    assert "to its end" not in ran.last_text, "all of it has come"


def test_the_cell_says_how_many_lines_are_above(kernel: Kernel) -> None:
    ran = kernel.run(f"%%submit many {SMALL}\nfor i in range(45):\n    print('line', i)")
    assert re.search(r"… 40 lines above · `%job \w{8} logs` shows them\n  \| line 40\n", ran.last_text)


@pytest.mark.feature("M13")
def test_no_token_is_in_what_the_notebook_keeps(kernel: Kernel, control: ControlPlane) -> None:
    token = control.start().token
    ran = kernel.run(f"%%submit job {SMALL}\nimport os\nsorted(os.environ)")
    shown = f"{ran.displays} {ran.updates} {ran.value} {kernel.run('job').displays}"
    assert token not in shown
