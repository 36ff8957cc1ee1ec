"""Messages and exit codes of input that the command line refuses itself."""

import pytest

from tuttilab.scheduler.cli.root import run


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["submit", "--gpuss", "1", "--", "x"], "No such option '--gpuss'. Did you mean '--gpus'? See `tuttilab submit --help`."),
        (["jbos"], "No such command 'jbos'. Did you mean 'jobs'? See `tuttilab --help`."),
        (
            ["submit", "--gpus", "1.5", "--", "x"],
            "--gpus: '1.5' is not whole; expected a whole number such as 0, 1 or 4.",
        ),
        (
            ["submit", "--memory", "5Q", "--", "x"],
            "--memory: '5Q' has the unknown unit 'Q'; expected bytes such as 512Mi, 8Gi or 16G.",
        ),
        (
            ["submit", "--"],
            "The command after -- is empty; expected a program and its arguments, such as `-- python train.py`.",
        ),
        (
            ["submit"],
            "Nothing to submit was given; expected `tuttilab submit FILE.yaml`, `tuttilab submit NOTEBOOK.ipynb` or "
            "`tuttilab submit [OPTIONS] -- COMMAND`.",
        ),
        (
            ["submit", "python", "train.py"],
            "'python' is not a manifest; a command goes after two dashes: `tuttilab submit [OPTIONS] -- python train.py`.",
        ),
        (
            ["submit", "--gpus", "1", "--in", "a", "missing.yaml"],
            "--gpus, --in: a manifest says this itself; expected options of this kind only with a command after --.",
        ),
        (
            ["submit", "missing.yaml"],
            "missing.yaml: the manifest cannot be read (No such file or directory); give the path of a YAML file.",
        ),
        (["submit", "a.yaml", "--", "x"], "Both the file 'a.yaml' and a command were given; expected one of them."),
        (["submit", "--env", "A", "--", "x"], "--env: 'A' is not KEY=VALUE. See `tuttilab submit --help`."),
        (
            ["up", "--config", "/nowhere/missing.yaml"],
            "The configuration /nowhere/missing.yaml cannot be read (No such file or directory); give the path of a tuttilab.yaml.",
        ),
    ],
)
def test_bad_input_is_one_sentence_on_stderr_and_exit_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(arguments)

    said = capsys.readouterr()
    assert (code, said.out, said.err) == (2, "", f"tuttilab: {sentence}\n")


def test_debug_shows_the_traceback_in_any_position(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["submit", "--gpus", "1.5", "--debug", "--", "x"])

    said = capsys.readouterr().err
    assert code == 2
    assert said.startswith("Traceback (most recent call last):\n")
    assert said.endswith("tuttilab: --gpus: '1.5' is not whole; expected a whole number such as 0, 1 or 4.\n")


def test_debug_in_the_jobs_own_command_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    run(["submit", "--gpus", "1.5", "--", "x", "--debug"])

    assert "Traceback" not in capsys.readouterr().err
