"""`%attach` for Spark cells whose kernel died: binds or shows each result that can still be fetched."""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from tuttilab.magics.shared.display import Area, Shown, display_value, show


def has_spark() -> bool:
    """Whether the Spark extra is installed, without importing it, which takes a second."""
    return all(importlib.util.find_spec(name) is not None for name in ("pyspark", "pyarrow", "grpc"))


def attach_spark(shell: InteractiveShell, provider: Any) -> int:
    """Returns how many cells were found. ``provider`` is None without Spark. Any: its type needs the extra."""
    if provider is None:
        return 0
    from tuttilab.magics.spark.recover import CannotReattach, reattach, recoverable

    entries = recoverable()
    for entry in entries:
        first_line = next((line for line in entry.source.splitlines() if line.strip()), "")
        show(Shown(f"A Spark cell of a kernel that died: {first_line[:80]}"))
        area = Area()
        try:
            recovered = reattach(entry, provider, partial(_show_status, area))
        except CannotReattach as error:
            show(Shown(str(error)))
            continue
        show(Shown(recovered.note + (f" It is in {recovered.var}." if recovered.var and recovered.value is not None else "")))
        if recovered.var is not None:
            shell.user_ns[recovered.var] = recovered.value
        elif recovered.value is not None:
            display_value(recovered.value)
    return len(entries)


def _show_status(area: Area, text: str) -> None:
    area.update(Shown(text, change_key=text))
