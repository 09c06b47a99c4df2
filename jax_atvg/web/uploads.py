"""Which files a message to gradio may name: those that a visitor has uploaded.

gradio checks that only in a page that it has launched itself, not in one that is
mounted in another application, and what is named by an address it would fetch.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

import gradio as gr


class CheckedBlocks(gr.Blocks):
    """gr.Blocks that takes no other files, whatever component they are meant for."""

    async def preprocess_data(self, block_fn, inputs, *rest, **more):
        """gr.Error: the message names another file."""
        folder = pathlib.Path(self.GRADIO_CACHE).resolve()
        for path in paths_in(inputs):
            if not pathlib.Path(path).resolve().is_relative_to(folder):
                raise gr.Error(
                    "this file was not uploaded here; upload it", print_exception=False
                )
        return await super().preprocess_data(block_fn, inputs, *rest, **more)


def paths_in(message: Any) -> Iterator[str]:
    """Every path, or address, that a message holds at any depth."""
    if isinstance(message, dict):
        if isinstance(path := message.get("path"), str):
            yield path
        message = list(message.values())
    if isinstance(message, list | tuple):
        for one in message:
            yield from paths_in(one)
