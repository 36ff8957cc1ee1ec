"""What comes back from a cell's job, and that nothing is lost without a word: in a real kernel against a real control plane."""

import gzip
import re
from pathlib import Path

import pytest

from tests.e2e.magics.conftest import SMALL, ControlPlane, Kernel

pytestmark = pytest.mark.tier("local")


@pytest.mark.feature("B26")
def test_a_variable_that_the_cell_ends_with_comes_back_under_its_name(kernel: Kernel) -> None:
    kernel.run("rows = [3, 1, 2]")
    ran = kernel.run(f"%%submit training {SMALL}\nmodel = {{'sorted': sorted(rows)}}")
    assert (ran.status, ran.value) == ("ok", None), ran.error
    assert re.search(r"\nback in the notebook: model \(dict, \d+ B\)$", ran.last_text)
    assert kernel.value("model") == "{'sorted': [1, 2, 3]}"
    assert kernel.value("training.result() == model, training.status") == "(True, 'Succeeded')"
    assert kernel.run(f"%%submit {SMALL}\na, b = 1, 'two'").status == "ok"
    assert kernel.value("a, b") == "(1, 'two')"


@pytest.mark.feature("B26")
def test_a_cell_that_assigns_the_variable_of_the_line_sets_it(kernel: Kernel) -> None:
    ran = kernel.run(f"%%submit total {SMALL}\ntotal = sum(range(10))\nprint(total)\ntotal > 40")
    assert (ran.status, ran.value) == ("ok", "True"), ran.error
    assert kernel.value("total") == "45"
    assert re.search(r"name +total\nphase +Succeeded\n", kernel.run("%job total").text)
    assert kernel.run("%job total logs").text == "45"


@pytest.mark.feature("B26")
def test_a_map_that_assigns_gives_the_list_of_its_values(kernel: Kernel) -> None:
    kernel.run("values = list(range(6))")
    ran = kernel.run(f"%%submit squares --map values --cpus 100m {SMALL}\nsquares = values ** 2")
    assert (ran.status, ran.value) == ("ok", None), ran.error
    assert ran.last_text.endswith("back in the notebook: squares (list of 6)")
    assert kernel.value("squares") == "[0, 1, 4, 9, 16, 25]"
    kernel.run(f"%%submit r --map values --cpus 100m {SMALL}\nhalf = values / 2")
    assert kernel.value("r.result(), half") == "([0.0, 0.5, 1.0, 1.5, 2.0, 2.5], [0.0, 0.5, 1.0, 1.5, 2.0, 2.5])"


@pytest.mark.feature("B26")
def test_a_cell_that_brings_nothing_back_says_so(kernel: Kernel) -> None:
    ran = kernel.run(f"%%submit loop {SMALL}\nfor i in range(3):\n    print(i)")
    assert ran.status == "ok", ran.error
    assert ran.last_text.endswith(
        "The cell brings nothing back: it ends with a `for` loop; end it with the variable that you need, or name it with --out."
    )
    assert "JobHandle has no" in kernel.run("loop.shape").error
    assert "the value of its cell is .result()" in kernel.run("loop.shape").error


@pytest.mark.feature("B26")
def test_a_variable_keeps_its_value_until_the_job_brings_another(kernel: Kernel) -> None:
    kernel.run("df = {'a': 1}")
    ran = kernel.run(f"%%submit df {SMALL}\ndf = df['b']")
    assert ran.ename == "RemoteError"
    assert "df keeps the value it had (dict); `%job df` is the job" in ran.last_text
    assert kernel.value("df") == "{'a': 1}"
    assert kernel.run("%job df").status == "ok"
    assert kernel.run(f"%%submit df {SMALL}\ndf = df['a'] + 1").status == "ok"
    assert kernel.value("df") == "2"
    error = kernel.run("%%submit df\ndf * 2").error
    assert "df is a int here, and the job's handle would take its place; choose another name, or let the cell assign df." in error
    assert "print is a builtin_function_or_method here" in kernel.run("%%submit print\n4").error


@pytest.mark.feature("B26")
def test_functions_of_the_notebook_see_what_the_cell_sets(kernel: Kernel) -> None:
    kernel.run("limit, cnt = 5, 0\ndef cheap(v): return v < limit\ndef inc():\n    global cnt\n    cnt += 1")
    ran = kernel.run(f"%%submit {SMALL}\nlimit = 100\ninc()\ninc()\ncheap(50), cnt")
    assert ran.value == "(True, 2)", ran.error
    assert kernel.value("limit, cnt") == "(5, 0)"


@pytest.mark.feature("B26")
def test_what_cannot_be_loaded_here_is_named_and_costs_only_itself(kernel: Kernel, tmp_path: Path) -> None:
    module = tmp_path / "changing.py"
    module.write_text("x = 1\n")
    kernel.run(f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport changing")
    module.write_text("x = 1\nclass New: pass\n")
    ran = kernel.run(f"%%submit {SMALL}\nshared = [1]\nu, v, w = changing.New(), 5, (shared, shared)")
    assert "Variable u of job" in ran.error
    assert "this kernel has another version of that module: import it again" in ran.error
    assert kernel.value("v, w, w[0] is w[1]") == "(5, ([1], [1]), True)"


@pytest.mark.feature("B26")
@pytest.mark.parametrize(
    ("cell", "note"),
    [
        ("print('score', 1.0)", "The cell brings nothing back: it ends with an expression whose value is None;"),
        ("kept.append(3)\nkept", "The value is `kept` as it is in the job; the notebook's own is unchanged:"),
        ("f()['x'] = 5", "The cell brings nothing back: it ends with an assignment to no variable;"),
        ("match 3:\n    case 3: mm = 'three'", "back in the notebook: mm (str, "),
        ("for i in range(3):\n    total = i\nelse:\n    done = True", "back in the notebook: total (int, 5 B), done (bool, 4 B)"),
        ("while True:\n    val = 1\n    break", "back in the notebook: val (int, 5 B)"),
    ],
)
def test_what_does_not_come_back_is_said(kernel: Kernel, cell: str, note: str) -> None:
    kernel.run("kept = []\ndef f(): return {}")
    ran = kernel.run(f"%%submit {SMALL}\n{cell}")
    assert ran.status == "ok", ran.error
    assert note in ran.last_text


def test_an_error_names_what_it_came_from(kernel: Kernel) -> None:
    ran = kernel.run(f"%%submit {SMALL}\ntry:\n    {{}}['k']\nexcept KeyError as e:\n    raise ValueError('outer') from e")
    assert ran.error.splitlines()[:2] == ["ValueError: outer", "  from KeyError: 'k'"]
    ran = kernel.run(f"%%submit {SMALL}\nraise ExceptionGroup('several', [ValueError('a'), TypeError('b')])")
    assert ran.error.splitlines()[1:3] == ["  with ValueError: a", "  with TypeError: b"]


@pytest.mark.feature("B26")
def test_a_value_that_cannot_be_pickled_costs_nothing_but_itself(kernel: Kernel) -> None:
    ran = kernel.run(f"%%submit job --out kept {SMALL}\nimport threading\nkept = [1, 2]\nthreading.Lock()")
    assert ran.status == "ok", ran.error
    assert str(ran.value).startswith("<stayed in the job: <unlocked _thread.lock object")
    assert "The value of the last expression (a _thread.lock) stays in the job, only its text came back: TypeError" in ran.last_text
    assert kernel.value("kept, job.status") == "([1, 2], 'Succeeded')"
    ran = kernel.run(f"%%submit job --out good,lock,late {SMALL}\nimport threading\ngood, lock, late = 1, threading.Lock(), [2]")
    assert "The cell ran, but variable lock (a _thread.lock) cannot be sent back: TypeError" in ran.error
    assert kernel.value("good, late") == "(1, [2])"


@pytest.mark.feature("B26")
def test_a_job_ends_as_a_script_does(kernel: Kernel, tmp_path: Path) -> None:
    cell = f"""
import atexit, csv, gzip, threading, time, multiprocessing
out = csv.writer(open("{tmp_path}/rows.csv", "w"))
out.writerow([1, 2])
packed = gzip.open("{tmp_path}/packed.gz", "wb")
packed.write(b"packed")
atexit.register(lambda: open("{tmp_path}/atexit", "w").write("ran"))
def late():
    time.sleep(1)
    open("{tmp_path}/thread", "w").write("ran")
threading.Thread(target=late).start()
child = multiprocessing.get_context("fork").Process(target=late)
child.start()
"done"
"""
    ran = kernel.run(f"%%submit {SMALL}{cell}")
    assert ran.value == "'done'", ran.error
    assert (tmp_path / "rows.csv").read_text() == "1,2\n"
    assert gzip.decompress((tmp_path / "packed.gz").read_bytes()) == b"packed"
    assert ((tmp_path / "atexit").read_text(), (tmp_path / "thread").read_text()) == ("ran", "ran")


@pytest.mark.feature("B26")
def test_a_thread_that_does_not_end_is_named_and_given_up(kernel: Kernel) -> None:
    cell = "import threading, time\nthreading.Thread(target=time.sleep, args=(900,), name='uploader').start()\n'done'"
    ran = kernel.run(f"%%submit job --env TUTTILAB_EXIT_WAIT_S=4 {SMALL}\n{cell}")
    assert ran.value == "'done'", ran.error
    log = kernel.run("print(job.logs())").stdout
    assert "tuttilab: the cell has ended; at most 4 s are left for what it left running: thread uploader (sleep)." in log
    assert "tuttilab: given up after 4 s: thread uploader (sleep). What it had not written is lost." in log


@pytest.mark.feature("B26")
@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_finally_and_context_managers_run_when_a_job_is_stopped(kernel: Kernel, tmp_path: Path, how: str) -> None:
    cell = f"""
import contextlib, time
@contextlib.contextmanager
def session():
    try:
        yield
    finally:
        open("{tmp_path}/closed", "w").write("yes")
with session():
    try:
        print("begun")
        time.sleep(60)
    finally:
        open("{tmp_path}/final", "w").write("yes")
"""
    # Its interpreter has to come as far as `with` before the limit is over.
    limit = "--timeout 15s" if how == "timeout" else ""
    kernel.run(f"%%submit job --detach {limit} {SMALL}{cell}")
    if how == "cancel":
        kernel.run("import time\nwhile 'begun' not in job.logs(): time.sleep(0.1)\njob.cancel()")
    assert kernel.value("job.wait(150).status", 70) in ("'Cancelled'", "'Failed'")
    assert ((tmp_path / "final").read_text(), (tmp_path / "closed").read_text()) == ("yes", "yes")
    assert kernel.value("job.view().attempts[-1].pods[-1].exit_code") == "143"


FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\n"


@pytest.mark.feature("B20")
def test_figures_html_and_tables_of_a_job_appear_in_the_cell(kernel: Kernel) -> None:
    cell = f"""
from IPython.display import HTML, display as shown
import pandas as pd
{FIGURE}plt.show()
display(HTML("<b>bold</b>"))
shown(pd.DataFrame({{"a": [1]}}))
handle = display("before", display_id=True)
handle.update("after")
assert get_ipython() is None
plt.plot([3, 4])
'value'
"""
    ran = kernel.run(f"%%submit {SMALL}{cell}")
    assert ran.value == "'value'", ran.error
    shown = [data for data in ran.displays if not str(data["text/plain"]).startswith(("sends", "sending", "job"))]
    kinds = [sorted(data) for data in shown]
    assert kinds == [
        ["image/png", "text/plain"], ["text/html", "text/plain"], ["text/html", "text/plain"], ["text/plain"],
        ["image/png", "text/plain"],
    ]  # fmt: skip
    assert shown[1]["text/html"] == "<b>bold</b>"
    assert "<th>a</th>" in shown[2]["text/html"]
    assert "'after'" in [shown[3]["text/plain"], *(data["text/plain"] for _, data in ran.updates)]
    assert all(data["image/png"].startswith("iVBOR") for data in (shown[0], shown[4]))


@pytest.mark.feature("B20")
def test_a_figure_that_is_the_value_of_a_gang_is_shown(kernel: Kernel) -> None:
    ran = kernel.run(f"%%submit gang --workers 2 --cpus 100m {SMALL}\n{FIGURE}plt.gcf()")
    assert ran.status == "ok", ran.error
    assert [sorted(data) for data in ran.displays[1:]] == [["image/png", "text/plain"]]
    assert str(ran.value).startswith("<Figure size")
    assert "ranks 1 displayed outputs too: .displays(rank=N) of the handle shows them" in ran.last_text
    assert "image/png" in kernel.run("gang.displays(rank=1)").displays[0]


@pytest.mark.feature("B20")
def test_an_output_is_shown_while_the_job_runs(kernel: Kernel) -> None:
    sent = kernel.send(f"%%submit {SMALL}\nimport time\ndisplay('first')\ntime.sleep(4)\ndisplay('second')\n'end'")
    early = kernel.gather(sent, until=lambda ran: any(data["text/plain"] == "'first'" for data in ran.displays))
    assert early.status == ""
    late = kernel.gather(sent)
    assert [data["text/plain"] for data in late.displays] == ["'second'"]
    assert late.value == "'end'"


@pytest.mark.feature("B20")
def test_a_plot_that_is_drawn_anew_each_round_stays_one(kernel: Kernel) -> None:
    loop = "for i in range(5):\n    clear_output(wait=True)\n    display(i)\n    time.sleep(0.5)"
    ran = kernel.run(f"%%submit {SMALL}\nfrom IPython.display import clear_output\nimport time\n{loop}\n1")
    assert ran.value == "1", ran.error
    assert len(ran.displays) == 2, "the status and the plot"
    shown = [ran.displays[1]["text/plain"], *(data["text/plain"] for _, data in ran.updates)]
    assert [text for text in shown if text.isdigit()][-1] == "4"


@pytest.mark.feature("B20")
def test_what_was_shown_before_a_failure_is_shown_too(kernel: Kernel) -> None:
    ran = kernel.run(f"%%submit {SMALL}\n{FIGURE}plt.show()\n1 / 0")
    assert ran.ename == "RemoteError"
    assert "image/png" in ran.displays[1]


@pytest.mark.feature("B20")
def test_an_output_that_is_too_large_is_named(kernel: Kernel) -> None:
    ran = kernel.run(f"%%submit big {SMALL}\nfrom IPython.display import HTML\ndisplay(HTML('x' * 9_000_000))\n1")
    assert (ran.status, ran.value) == ("ok", "1")
    assert ran.displays[1]["text/plain"] == "[an output of 9 MiB is not shown, at most 8 MiB are]"


@pytest.mark.feature("B29")
def test_a_job_finds_the_modules_that_the_notebook_finds(kernel: Kernel, tmp_path: Path) -> None:
    src, old = tmp_path / "my src", tmp_path / "old"
    for folder, name in ((src, "beside_src"), (old, "before_chdir")):
        folder.mkdir()
        (folder / f"{name}.py").write_text("def answer():\n    return 42\n")
    kernel.run(f"import os, sys\nsys.path.append({str(src)!r})\nback = os.getcwd()\nos.chdir({str(old)!r})\nimport before_chdir")
    kernel.run(f"os.chdir({str(tmp_path)!r})")
    try:
        ran = kernel.run(f"%%submit {SMALL}\nimport beside_src\nbeside_src.answer() + before_chdir.answer()")
    finally:
        kernel.run("os.chdir(back)")
    assert ran.value == "84", ran.error


@pytest.mark.feature("B29")
def test_what_an_image_lacks_is_said_before_the_job_is_queued(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "features_of_mine.py").write_text("x = 1\n")
    kernel.run(f"import sys\nsys.path.append({str(tmp_path)!r})")
    ran = kernel.run(f"%%submit --image some/image:1 {SMALL}\nimport features_of_mine\nfeatures_of_mine.x")
    said = "your own modules features_of_mine ({}) are not sent with --image: unless the image has them, add --files {}"
    assert said.format(*[tmp_path / "features_of_mine.py"] * 2) in ran.text + ran.error
    # The image itself is not ignored where it cannot be run.
    assert "image: 'some/image:1' cannot be run here: pods of here are processes of the machine; leave the image out" in ran.error


def test_await_works_at_the_top_of_a_cell(kernel: Kernel) -> None:
    cell = "import asyncio\nasync def twice(n):\n    await asyncio.sleep(0)\n    return 2 * n\nx = await twice(4)\nawait twice(x)"
    ran = kernel.run(f"%%submit {SMALL}\n{cell}")
    assert ran.value == "16", ran.error
    late = "import asyncio\nasync def late():\n    await asyncio.sleep(0.5)\n    print('late')\n"
    task = f"{late}asyncio.create_task(late())\nawait asyncio.sleep(0)"
    assert "| late" in kernel.run(f"%%submit {SMALL}\n{task}").last_text
    ran = kernel.run(f"%%submit {SMALL}\nimport asyncio\nawait asyncio.sleep(0)\nraise ValueError('late')")
    assert "ValueError: late" in ran.error
    assert "-->   4 raise ValueError('late')" in ran.error


@pytest.mark.feature("B15")
def test_an_error_shows_the_lines_of_the_users_own_modules(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "module_of_mine.py").write_text("def fail(n):\n    return 1 / n\n")
    kernel.run(f"import sys\nsys.path.append({str(tmp_path)!r})\nimport module_of_mine")
    error = kernel.run(f"%%submit {SMALL}\nmodule_of_mine.fail(0)").error
    assert f"{tmp_path}/module_of_mine.py, line 2, in fail" in error
    assert "-->   2     return 1 / n" in error


def test_names_in_the_text_of_a_query_travel(kernel: Kernel) -> None:
    kernel.run("import pandas as pd\nframe = pd.DataFrame({'a': [1, 5, 9]})\nthr = 3\nhidden = 7")
    ran = kernel.run(f"%%submit {SMALL}\nlen(frame.query('a > @thr'))")
    assert ran.value == "2", ran.error
    ran = kernel.run(f"%%submit --in +hidden {SMALL}\neval('hid' + 'den') + len(frame)")
    assert ran.value == "10", ran.error
    assert "mixes names with + and without" in kernel.run("%%submit --in +hidden,thr\n1").error


@pytest.mark.parametrize(
    ("raised", "shown"),
    [
        (
            "class E(Exception):\n    def __str__(self): raise RuntimeError('broken')\nraise E()",
            "E: <the text of this E cannot be had",
        ),
        ("raise ValueError('half \\ud800 pair')", r"ValueError: half \ud800 pair"),
        ("raise ValueError('x' * 1_000_000)", "ValueError: xxxx"),
    ],
    ids=["str-raises", "surrogate", "huge"],
)
def test_an_error_whose_text_is_broken_shows_its_lines_all_the_same(kernel: Kernel, raised: str, shown: str) -> None:
    ran = kernel.run(f"%%submit {SMALL}\n{raised}")
    assert ran.ename == "RemoteError"
    assert ran.error.startswith(shown)
    assert "--> " in ran.error
    assert len(ran.error.encode()) < 1024


def test_polling_of_ours_reaches_no_logger_of_the_user(kernel: Kernel, control: ControlPlane) -> None:
    kernel.run("import logging\nlogging.basicConfig(level=logging.DEBUG, force=True)")
    try:
        ran = kernel.run(f"%%submit {SMALL}\nimport time\ntime.sleep(2)\n1")
        assert (ran.value, ran.stdout + ran.stderr) == ("1", "")
        assert kernel.run("%jobs").stderr == ""
        # The user's own requests are logged as ever.
        own = kernel.run(f"import httpx\nhttpx.get({control.start().url + '/healthz'!r})")
        assert "HTTP Request: GET" in own.stderr
    finally:
        kernel.run("logging.basicConfig(level=logging.WARNING, force=True)")


def test_the_log_has_a_line_where_something_was_shown(kernel: Kernel, control: ControlPlane) -> None:
    cell = f"""
from IPython.display import HTML, clear_output
print("before")
{FIGURE}plt.show()
print("between")
bar = display(HTML("<progress>"), display_id=True)
for step in range(30):
    bar.update(HTML(f"<progress value={{step}}>"))
display("a text")
for step in range(5):
    clear_output(wait=True)
    {FIGURE.replace(chr(10), ";")}plt.show()
print("after")
"""
    ran = kernel.run(f"%%submit drawing {SMALL}{cell}")
    assert ran.status == "ok", ran.error
    lines = kernel.run("print(drawing.logs())").stdout.splitlines()
    name = kernel.value("drawing.id").strip("'")[:8]
    ways = f"see the cell, the job's page in JupyterLab or %attach {name}]"
    figure = rf"\[figure 1: image/png, \d{{3}}x\d{{3}}, \d\d kB; {re.escape(ways)}"
    assert lines[0] == "before"
    assert re.fullmatch(figure, lines[1])
    assert lines[2:] == ["between", f"[output 1: text/html, 10 B; see the cell or %attach {name}]", "'a text'", "after"]
    assert control.client().logs(kernel.value("drawing.id").strip("'")).lines[1] == lines[1]
    # The way that the line names.
    assert "image/png" in kernel.run(f"%attach {name}").displays[1]


def test_the_log_of_another_rank_names_the_way_to_its_outputs(kernel: Kernel) -> None:
    ran = kernel.run(f"%%submit pair --workers 2 --cpus 100m {SMALL}\n{FIGURE}plt.show()\n1")
    assert ran.status == "ok", ran.error
    assert kernel.run("print(pair.logs(rank=1))").stdout.strip().endswith("see .displays(rank=1) of the handle]")
    assert "image/png" in kernel.run("pair.displays(rank=1)").displays[0]
