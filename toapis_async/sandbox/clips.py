"""Videos: filmed with PyAV and Pillow where they are installed (blocking), else one of a few ready-made clips."""

from __future__ import annotations

import importlib
import importlib.util
import io
import struct
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from toapis_async.sandbox.jobs import VideoJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from PIL import Image

    from toapis_async.sandbox.jobs import Job

READY_MADE: Final = ("21:9", "16:9", "3:2", "4:3", "1:1", "3:4", "2:3", "9:16")
"""The ratios that there is a clip of, as `assets/clips/16x9.mp4` and so on; `clip.gif` stands for all."""
_QUICKTIME: Final = b"ftypqt  "
_FRAMES_PER_S: Final = {"gif": 4, "mp4": 8, "mov": 8}
_CODEC_OPTIONS: Final = {"preset": "veryfast", "crf": "30", "tune": "animation"}
_LARGE_PIXELS: Final = 2_500_000
"""From here on a quarter of the frames, and the fastest encoding: a clip of 4k would take half a minute."""


class StoppedError(Exception):
    """The sandbox closed while a video was filmed."""


def film(job: Job, index: int, reference: bytes | None, stopped: Callable[[], bool] = lambda: False) -> bytes:
    """Video `index` of a job, of its size and duration, with its prompt in it; `ready_made` without PyAV.

    Raises `StoppedError` between two frames once `stopped()`.
    """
    if not isinstance(job, VideoJob) or importlib.util.find_spec("av") is None:
        return ready_made(job, index, reference)
    large = job.width * job.height > _LARGE_PIXELS
    per_s = _FRAMES_PER_S[job.output_format] // (4 if large else 1)
    frames = _until(stopped, frames_of(job, index, reference, per_s * job.duration_s))
    if job.output_format == "gif":
        stream = io.BytesIO()
        next(frames).save(stream, "GIF", save_all=True, append_images=frames, duration=1000 // per_s)
        return stream.getvalue()
    return encoded(frames, job, per_s, {**_CODEC_OPTIONS, "preset": "ultrafast"} if large else _CODEC_OPTIONS)


def ready_made(job: Job, index: int, reference: bytes | None) -> bytes:
    """A clip of two seconds, of the ratio that is nearest to the job's. No two videos have the same bytes."""
    del reference
    own = f"{job.digest}/{index}".encode()
    if job.output_format == "gif":
        return _asset("clip.gif")[:-1] + b"\x21\xfe" + bytes((len(own),)) + own + b"\0;"  # a comment at the end
    wanted = job.width / job.height
    nearest = min(READY_MADE, key=lambda ratio: abs(_value(ratio) / wanted - 1))
    clip = _asset(f"{nearest.replace(':', 'x')}.mp4")
    if job.output_format == "mov":
        clip = clip[:4] + _QUICKTIME + clip[12:]
    return clip + struct.pack(">I", 8 + len(own)) + b"free" + own


def encoded(frames: Iterator[Image.Image], job: Job, per_s: int, options: dict[str, str]) -> bytes:
    """Frames as H.264 in MP4 or MOV."""
    av: Any = importlib.import_module("av")  # an extra of its own, without complete types
    stream = io.BytesIO()
    with av.open(stream, "w", format=job.output_format) as container:
        track = container.add_stream("libx264", rate=per_s, options=options)
        track.width, track.height, track.pix_fmt = job.width, job.height, "yuv420p"
        for frame in frames:
            container.mux(track.encode(av.VideoFrame.from_image(frame.convert("RGB"))))
        container.mux(track.encode())
    return stream.getvalue()


def frames_of(job: Job, index: int, reference: bytes | None, count: int) -> Iterator[Image.Image]:
    """A picture that grows brighter, over a bar that grows longer."""
    from PIL import ImageDraw  # noqa: PLC0415  an extra of its own

    from toapis_async.sandbox.pictures.drawing import paint  # noqa: PLC0415  needs Pillow

    picture = paint(job, index, reference)
    palette = picture.getpalette() or []
    for share in ((number + 1) / count for number in range(count)):
        frame = picture.copy()
        bar = (0, job.height * 0.985, job.width * share, job.height)
        ImageDraw.Draw(frame).rectangle(bar, fill=255)
        frame.putpalette([round(value * (0.6 + 0.4 * share)) for value in palette])
        yield frame


def _until(stopped: Callable[[], bool], frames: Iterator[Image.Image]) -> Iterator[Image.Image]:
    for frame in frames:
        if stopped():
            raise StoppedError
        yield frame


def _value(ratio: str) -> float:
    across, _, down = ratio.partition(":")
    return int(across) / int(down)


def _asset(name: str) -> bytes:
    return files("toapis_async.sandbox").joinpath("assets", "clips", name).read_bytes()
