"""Notebook files for tests."""

from __future__ import annotations

from pathlib import Path

import nbformat

PARAMETERS = "day = 'today'\ntimes = 1"


def write_notebook(path: Path, *cells: str, parameters: str | None = PARAMETERS, kernel: str = "python3") -> Path:
    """A notebook of code cells, after a title and, unless ``parameters`` is None, a cell tagged for parameters."""
    metadata = {"kernelspec": {"name": kernel, "language": "python", "display_name": kernel}}
    found = nbformat.v4.new_notebook(metadata=metadata)  # type: ignore[no-untyped-call]
    found.cells = [nbformat.v4.new_markdown_cell("# A report")]  # type: ignore[no-untyped-call]
    if parameters is not None:
        tagged = nbformat.v4.new_code_cell(parameters)  # type: ignore[no-untyped-call]
        tagged.metadata["tags"] = ["parameters"]
        found.cells.append(tagged)
    found.cells += [nbformat.v4.new_code_cell(source) for source in cells]  # type: ignore[no-untyped-call]
    nbformat.write(found, str(path))  # type: ignore[no-untyped-call]
    return path


def outputs_of(path: Path) -> list[str]:
    """What each code cell of an executed notebook printed or gave, in order."""
    found = nbformat.read(str(path), as_version=4)  # type: ignore[no-untyped-call]
    texts = []
    for cell in found.cells:
        if cell.cell_type == "code":
            parts = [out.get("text") or out.get("data", {}).get("text/plain") or out.get("evalue", "") for out in cell.outputs]
            texts.append("".join(parts).strip())
    return texts
