"""The tools as an agent sees them: names, what they are for, and the types of their arguments (JSON Schema)."""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen

from toapis_async.request import DEFAULT_MODEL, VIDEO_MODELS

Schema = dict[str, Any]

MOST_WAIT_S: Final = 50
DEFAULT_WAIT_S: Final = 45
"""Seconds: hosts end a call after 60 or so."""
MOST_ROWS: Final = 1_000
MOST_RECENT: Final = 100


@frozen
class ToolSchema:
    """A tool as it is listed."""

    name: str
    title: str
    description: str
    arguments: Schema
    required: tuple[str, ...] = ()
    is_read_only: bool = True

    @property
    def input_schema(self) -> Schema:
        return {
            "type": "object",
            "properties": self.arguments,
            "required": list(self.required),
            "additionalProperties": False,
        }


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def _number(description: str, **more: Any) -> Schema:
    return {"type": "integer", "description": description, **more}


def _flag(description: str) -> Schema:
    return {"type": "boolean", "description": description}


def _object(description: str) -> Schema:
    return {"type": "object", "description": description}


def _links(description: str) -> Schema:
    return {"type": "array", "items": {"type": ["string", "object"]}, "description": description}


_FILES: Final = "http(s) links, or names of files in the server's folder"
_WAIT: Final = {
    "type": "number",
    "minimum": 0,
    "maximum": MOST_WAIT_S,
    "description": f"Seconds to wait for the result, {DEFAULT_WAIT_S} by default. When they run out the work goes on, "
    "and the answer has a token for `wait`.",
}
_REQUEST_ID: Final = _text(
    "An id of your own for this purchase. A call made again with it gets the same task and pays nothing, also after a "
    "restart. Recommended.",
    minLength=1,
    maxLength=200,
)
_AGAIN: Final = _flag("true buys another one, though the very same was just asked for.")
_OF_A_CALL: Final[Schema] = {"wait_s": _WAIT, "request_id": _REQUEST_ID, "again": _AGAIN}

IMAGE_FIELDS: Final[Schema] = {
    "prompt": _text("What the picture shows."),
    "model": _text(f"Default: {DEFAULT_MODEL}. `prices` lists the models."),
    "size": _text("Aspect ratio such as 16:9. Default: 1:1."),
    "resolution": _text("1k (default), 2k or 4k."),
    "quality": _text("low, medium (default) or high."),
    "n": _number("Number of pictures, each paid for. Default: 1.", minimum=1),
    "reference_images": _links(f"Pictures to work from, in order: {_FILES}."),
    "image_urls": _links("The name of reference_images at some models."),
    "mask_url": _text("Which part of the first reference to repaint: a PNG with alpha, a link or a file."),
    "background": _text("transparent, where the model honours it."),
    "output_format": _text("png or jpeg (GPT image models)."),
    "output_compression": _number("0 to 100 (GPT image models)."),
    "seed": _number("For models that read one."),
    "layer_decomposition": _flag("Also in layers (Seedream 5.0 Pro)."),
    "endpoint": _text("Left out, the model decides.", enum=["generations", "edits"]),
    "response_format": _text("Leave it out: only url is of use.", enum=["url", "b64_json"]),
    "metadata": _object("Fields that some models read here."),
    "extra": _object("Any other field, sent unchecked over the rest."),
}
"""The fields of `ImageRequest`, without those that are the server's."""

VIDEO_FIELDS: Final[Schema] = {
    "prompt": _text("What the video shows; some models can do without."),
    "model": _text(f"Required. Known are {', '.join(VIDEO_MODELS)}."),
    "duration": _number("Seconds."),
    "aspect_ratio": _text("Such as 16:9."),
    "ratio": _text("The name of aspect_ratio at wan3.0-video."),
    "size": _text("The name of aspect_ratio at Veo's official models."),
    "resolution": _text("Such as 720p."),
    "quality": _text("The name of resolution at grok-imagine-1.0-video."),
    "mode": _text("std or pro (Kling)."),
    "image": _text("The picture to begin with (grok-video): a link or a file."),
    "image_urls": _links(f"Pictures to work from: {_FILES}."),
    "reference_images": _links(f"Pictures to work from (Kling, Wan 3, Grok and others): {_FILES}."),
    "image_with_roles": _links('[{"url": …, "role": "first_frame" | "last_frame" | "reference_image"}]'),
    "video_with_roles": _links('[{"url": …, "role": "reference_video"}]'),
    "audio_with_roles": _links('[{"url": …, "role": "reference_audio"}]'),
    "video_list": _links("Videos to work from."),
    "url": _text("A video to work from (viduq3-pro-fast, happyhorse): a link or a file."),
    "negative_prompt": _text("What the video should not show."),
    "prompt_extend": _flag("Whether the service may work the prompt out (Wan)."),
    "shot_type": _text("One shot or several (Wan)."),
    "seed": _number("For models that read one."),
    "generate_audio": _flag("Whether there is sound (Seedance 2)."),
    "audio": {"type": ["boolean", "string"], "description": "Whether there is sound, or the sound (Kling, Wan, Vidu)."},
    "audio_setting": {"description": "What becomes of the sound of an edited video (happyhorse)."},
    "return_last_frame": _flag("The last frame as a picture, too (Seedance 2)."),
    "watermark": _flag("Whether it bears a mark."),
    "tools": _links('[{"type": "web_search"}] (Seedance 2)'),
    "video_operation": _text("generate, edit or extend (Seedance 2.5)."),
    "action": _text("What is made of what (happyhorse)."),
    "output_format": _text("mp4 or mov (Seedance 2.5)."),
    "thumbnail": {"description": "Sora's, sent as it is."},
    "timestamps": _text('"1,3": where a character is seen (Sora).'),
    "from_task": _text("The task whose video shows a character (Sora)."),
    "trace_id": _text("A mark for the provider's support (Seedance 2)."),
    "remix_of": _text("The id of a video to make anew."),
    "extend_of": _text("The id of a video to make longer."),
    "metadata": _object("Fields that some models read here."),
    "extra": _object("Any other field, sent unchecked over the rest."),
}
"""The same of `VideoRequest`."""

_TOKEN: Final = _text("A token of an earlier answer, or a task's id.")
_KIND: Final = _text("image (default) or video.", enum=["image", "video"])

TOOLS: Final = (
    ToolSchema(
        "generate",
        "Generate images",
        "Make pictures from a prompt; they are saved in the server's folder. Costs credits. Give a request_id, so that "
        "a repeated call pays nothing.",
        {**IMAGE_FIELDS, **_OF_A_CALL},
        ("prompt",),
        is_read_only=False,
    ),
    ToolSchema(
        "generate_video",
        "Generate a video",
        "Make a video; it is saved in the server's folder. Takes minutes and costs more than a picture. Each model "
        "reads its own fields.",
        {**VIDEO_FIELDS, **_OF_A_CALL},
        ("model",),
        is_read_only=False,
    ),
    ToolSchema(
        "wait",
        "Wait for a task or batch",
        "Go on waiting for what an earlier call began, and get its files. Costs nothing.",
        {"token": _TOKEN, "wait_s": _WAIT},
        ("token",),
    ),
    ToolSchema(
        "status",
        "Status of a task or batch",
        "How a task or a batch stands, without waiting. Costs nothing.",
        {"token": _TOKEN},
        ("token",),
    ),
    ToolSchema(
        "recent",
        "Recent submissions",
        "What was submitted lately, also before a restart: tokens, states, files and costs.",
        {"limit": _number("How many. Default: 10.", minimum=1, maximum=MOST_RECENT)},
    ),
    ToolSchema(
        "batch",
        "Generate many",
        f"Make many pictures or videos at once, at most {MOST_ROWS:,}: prompts inline, or the rows of a file. Every "
        "row is checked before any is sent. The same batch again goes on where it was, and pays for no row twice.",
        {
            "prompts": {
                "type": "array",
                "minItems": 1,
                "maxItems": MOST_ROWS,
                "items": {"type": ["string", "object"]},
                "description": 'Prompts, or objects of the fields of `generate` (or with "kind": "video" of '
                '`generate_video`), with an optional "key" that names the files.',
            },
            "file": _text("Instead: a file in the folder with rows (.jsonl, .csv, .xlsx) or a prompt a line (.txt)."),
            **_OF_A_CALL,
        },
        is_read_only=False,
    ),
    ToolSchema(
        "prices",
        "Prices",
        "This key's prices in USD, of all models of a kind or of one. They change, and are no quote.",
        {"model": _text("Only this model."), "kind": _KIND},
    ),
    ToolSchema("balance", "Balance", "Credits left on the key, and how much of this server's budget is taken.", {}),
    ToolSchema(
        "upload",
        "Upload a file",
        "Send a picture (10 MB) or a video (50 MB) of the server's folder, for a link to use as a reference. "
        "`generate` takes names of files, too, and uploads them by itself.",
        {"file": _text("Its name in the server's folder.")},
        ("file",),
        is_read_only=False,
    ),
)
