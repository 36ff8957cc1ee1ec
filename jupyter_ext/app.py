"""The extension application: its settings, its handlers, and the shutdown with the server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from jupyter_server.extension.application import ExtensionApp
from traitlets import Bool, Float

from tuttilab.jupyter_ext.cells import CellWatch
from tuttilab.jupyter_ext.embedded import ControlPlane
from tuttilab.jupyter_ext.events import SCHEMA_FILE, SCHEMA_ID, ChangeFeed, Notice
from tuttilab.jupyter_ext.handlers import handlers_for
from tuttilab.jupyter_ext.spark_ui import SparkPages, spark_handlers
from tuttilab.jupyter_ext.tensorboard import Boards, board_handlers
from tuttilab.scheduler.domain.model import NOTEBOOK_VARIABLE


class TuttiLab(ExtensionApp):
    """Settings are `c.TuttiLab.…` in jupyter_server_config.py."""

    name = "tuttilab"
    extension_url = "/lab"
    load_other_extensions = True

    start_control_plane = Bool(
        True, config=True, help="Start the local control plane when the panel is first shown and none is configured."
    )
    tensorboard_idle_s = Float(3600.0, config=True, help="End a TensorBoard that nobody has looked at for so many seconds.")

    def initialize_handlers(self) -> None:
        events = self._server().event_logger
        if SCHEMA_ID not in events.schemas:
            events.register_event_schema(SCHEMA_FILE)
        self._plane = ControlPlane(self.start_control_plane)
        self._feed = ChangeFeed(self._plane, self._emit)
        self._plane.say = self._feed.hear_nothing
        self._boards = Boards(self._server().base_url, self.tensorboard_idle_s)
        self._spark_pages = SparkPages(self._plane, self._server().base_url)
        self._cells = CellWatch(self._kernel_states, self._report_cell)
        self.handlers.extend(handlers_for(self._plane, self._feed))
        self.handlers.extend(board_handlers(self._plane, self._feed, self._boards))
        self.handlers.extend(spark_handlers(self._plane, self._feed, self._spark_pages))

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """Jupyter's hook after the start of its event loop. ``Any``: its type of the server."""
        if os.environ.get(NOTEBOOK_VARIABLE):
            self._cells.start()

    def _kernel_states(self) -> Iterator[str]:
        kernels = self._server().kernel_manager
        for kernel_id in kernels.list_kernel_ids():
            yield getattr(kernels.get_kernel(kernel_id), "execution_state", "")

    async def _report_cell(self) -> None:
        await (await self._plane.client()).active(os.environ[NOTEBOOK_VARIABLE])

    def _server(self) -> Any:
        """The Jupyter server. ``Any``: its traits are typed as if each could be None."""
        return self.serverapp

    def _emit(self, notice: Notice) -> None:
        self._server().event_logger.emit(schema_id=SCHEMA_ID, data=notice.data())

    async def stop_extension(self) -> None:
        await self._cells.stop()
        await self._boards.stop()
        await self._spark_pages.stop()
        await self._feed.stop()
        await self._plane.close()
