"""Makes the sandbox's ready-made clips (needs PyAV and Pillow): python docs/tools/ready_made_clips.py."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from toapis_async.sandbox import clips
from toapis_async.sandbox.jobs import VideoJob
from toapis_async.sandbox.video_validation import frame_size, understand_video

FOLDER = Path(clips.__file__).parent / "assets" / "clips"
PROMPT = "a lighthouse by the sea"
SHORTER, SECONDS, FRAMES_PER_S = 270, 2, 8


def job_of(ratio: str) -> VideoJob:
    """A job of two seconds, small enough to be shipped."""
    job = understand_video({"model": "wan3.0-video", "prompt": PROMPT, "ratio": ratio, "duration": SECONDS})
    width, height = frame_size(ratio, SHORTER)
    values = {name: getattr(job, name) for name in VideoJob.__dataclass_fields__}
    return VideoJob(**{**values, "width": width, "height": height, "model": "toapis sandbox"})


def main() -> None:
    """Write a clip of each ratio, and one GIF."""
    av: Any = importlib.import_module("av")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for ratio in clips.READY_MADE:
        job, path = job_of(ratio), FOLDER / f"{ratio.replace(':', 'x')}.mp4"
        with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
            track = container.add_stream("libx264", rate=FRAMES_PER_S, options={"preset": "veryslow", "crf": "34"})
            track.width, track.height, track.pix_fmt = job.width, job.height, "yuv420p"
            for frame in clips.frames_of(job, 0, None, SECONDS * FRAMES_PER_S):
                container.mux(track.encode(av.VideoFrame.from_image(frame.convert("RGB"))))
            container.mux(track.encode())
    first, *others = [frame.resize((128, 72)) for frame in clips.frames_of(job_of("16:9"), 0, None, 4)]
    first.save(FOLDER / "clip.gif", "GIF", save_all=True, append_images=others, duration=500)


if __name__ == "__main__":
    main()
