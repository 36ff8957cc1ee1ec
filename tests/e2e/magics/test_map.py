"""`--map`, `sweep` and the decorator: one job an element, results in order, a failed one in its place."""

import pytest

from tests.e2e.magics.conftest import ControlPlane, Kernel

pytestmark = pytest.mark.tier("local")


@pytest.mark.feature("J20")
def test_results_come_in_order_and_a_failed_element_loses_nothing(kernel: Kernel) -> None:
    kernel.run("xs = [3, 0, 2, 1, 5, 4]")
    ran = kernel.run("%%submit back --map xs --cpus 10m --memory 128Mi\nassert xs != 2, 'two is not wanted'\nxs * 10", timeout=110)
    assert (ran.status, ran.ename) == ("error", "ElementsFailed")
    assert "1 of 6 elements failed: [2]. The first: job" in ran.error
    assert "back.result() has the values of the others, back.retry() runs the failed ones again." in ran.error
    assert (
        kernel.value("[v if isinstance(v, int) else v.message for v in back.result()]")
        == "[30, 0, 'two is not wanted', 10, 50, 40]"
    )
    assert len(ran.displays) == 1
    assert "6 of 6 elements done in" in ran.last_text
    assert "1 Failed, 5 Succeeded" in ran.last_text
    assert "[2] job" in ran.last_text
    assert ran.last_text.splitlines()[-1] == "1 element failed: [2]"
    assert kernel.value("back.status") == "{'Succeeded': 5, 'Failed': 1}"
    assert kernel.value("len(back)") == "6"
    assert kernel.value("[type(v).__name__ for v in back.retry().result()][2]") == "'RemoteError'"


@pytest.mark.feature("J20")
def test_a_sweep_of_many_is_followed_and_taken_up_by_one_of_its_ids(kernel: Kernel) -> None:
    kernel.run("zs = list(range(24))")
    kernel.run("%%submit many --map zs --detach --cpus 20m --memory 128Mi\nzs + 1")
    ran = kernel.run("%attach many", timeout=110)
    assert "24 of 24 elements done in" in ran.last_text
    assert kernel.value("many.result() == list(range(1, 25))") == "True"
    taken_up = kernel.run("same = get_ipython().run_line_magic('attach', many[5].id[:10])")
    assert taken_up.status == "ok", taken_up.error
    assert kernel.value("same == list(range(1, 25))") == "True"


def test_the_bundle_is_sent_once(kernel: Kernel, control: ControlPlane) -> None:
    def bundles() -> set[str]:
        files = (path for path in (control.state_dir / "artifacts").rglob("*") if path.is_file())
        return {path.name for path in files if path.read_bytes().startswith(b"bundle.json\0")}

    before = bundles()
    kernel.run("ys = list(range(3))")
    kernel.run("%%submit once --map ys --detach --cpus 10m --memory 128Mi\nys")
    assert kernel.value("once.result(timeout=150)") == "[0, 1, 2]"
    assert len(bundles() - before) == 1


def test_a_decorated_function_is_a_job_when_called(kernel: Kernel) -> None:
    kernel.run(
        "from tuttilab.magics import submit\nfactor = 3\n"
        "@submit(memory='256Mi')\ndef times(n, plus=0):\n    return n * factor + plus"
    )
    assert kernel.value("times(4, plus=1).result(timeout=150)") == "13"
    assert kernel.value("times.local(4)") == "12"
    assert kernel.value("times.options(name='renamed')(1).name") == "'renamed'"


def test_a_sweep_of_a_plain_function(kernel: Kernel) -> None:
    kernel.run("from tuttilab.magics import sweep\ndef square(n):\n    return n * n")
    assert kernel.value("sweep(square, [1, 2, 3], cpus='10m', memory='128Mi').result(timeout=150)") == "[1, 4, 9]"


def test_an_unknown_keyword_names_the_nearest(kernel: Kernel) -> None:
    ran = kernel.run("from tuttilab.magics import submit\n@submit(worker=2)\ndef f():\n    pass")
    assert ran.error == "BadInput: submit: unknown keyword worker; did you mean workers?"


def test_a_failed_element_stops_the_cell_also_without_a_variable_and_on_attach(kernel: Kernel) -> None:
    kernel.run("ws = [1, 0]")
    ran = kernel.run("%%submit --map ws --cpus 10m --memory 128Mi\n1 / ws", timeout=110)
    assert (ran.status, ran.ename) == ("error", "ElementsFailed")
    assert "1 of 2 elements failed: [1]." in ran.error
    assert kernel.value("last_map.result()[0]") == "1.0"
    again = kernel.run("%attach last_map")
    assert (again.status, again.ename) == ("error", "ElementsFailed")
