"""TensorBoard's file of events, written at once: a full disk is an error here, not a traceback of another thread."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from PIL.Image import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

__all__ = ["EventFile"]


class EventFile:
    """Scalars for TensorBoard.

    Attributes:
        path: the file.

    Args:
        folder: made where it is missing; gets one more file.
        first: the step that comes next, counted from 1; what earlier files say of it and of later ones is replaced.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """

    def __init__(self, folder: Path, first: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names
        name = f"events.out.tfevents.{time.time_ns() // 1000:017d}.{platform.node()}.{os.getpid()}"
        self.path = folder / name
        self._file = self.path.open("xb", buffering=0)
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._write(Event(wall_time=time.time(), step=first, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, values: Mapping[str, float], pictures: Mapping[str, Image] | None = None) -> None:
        """Write the values and pictures of a step under their names.

        Raises:
            OSError: the disk is full.
        """
        rows = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        rows += [Summary.Value(tag=tag, image=_image(picture)) for tag, picture in (pictures or {}).items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=rows)))

    def close(self) -> None:
        """Close the file, in which everything is already."""
        self._file.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())


def _image(picture: Image) -> Summary.Image:
    """An RGB picture as TensorBoard keeps it."""
    written = BytesIO()
    picture.save(written, "PNG")
    return Summary.Image(
        width=picture.width, height=picture.height, colorspace=3, encoded_image_string=written.getvalue()
    )
