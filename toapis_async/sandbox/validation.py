"""What the service reads of a submission of images, and what it refuses. Pure: a JSON value in, an `ImageJob` or a
refusal out. Values are refused where a model's page lists what it takes; fields that it does not list are not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from toapis_async.sandbox.catalogue import IMAGE_MODELS, ImageModel, is_pixel_size, loose_pixel_size, pixel_size
from toapis_async.sandbox.jobs import (
    ImageJob,
    JsonObject,
    check_types,
    chosen,
    client_business_id_of,
    invalid,
    is_url,
    metadata_of,
    model_name,
    no_channel,
    object_of,
    prompt_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

GENERATIONS: Final = "/v1/images/generations"
EDITS: Final = "/v1/images/edits"

_TEXTS: Final = ("response_format", "background", "callback_url", "output_format", "orientation")
_METADATA_FLAGS: Final = ("google_search", "google_image_search", "watermark", "prompt_upsampling", "prompt_extend")


def understand_image(body: object, path: str = GENERATIONS) -> ImageJob:
    """Read a submission's JSON value; raises `RefusedError` as the service would refuse it."""
    fields = object_of(body)
    model = _model(fields, path)
    metadata = metadata_of(fields)
    _check_types(fields, metadata)
    references = _references(model, fields, path)
    resolution, quality = _resolution(model, fields, metadata), _quality(model, fields, references)
    size, (width, height) = _size(model, fields, resolution)
    prompt, n = prompt_of(fields, model.prompt_limit), _n(model, fields, references)
    _check_background(model, fields)
    return ImageJob(
        kind="image",
        path=path,
        model=model.name,
        prompt=prompt,
        size=size,
        resolution=resolution,
        quality=quality,
        n=n,
        width=width,
        height=height,
        output_format=_output_format(model, fields, metadata),
        references=references,
        client_business_id=client_business_id_of(fields, metadata),
        callback_url=cast("str | None", fields.get("callback_url")),
        charge=model.charge(resolution, quality, n, width * height, prompt),
        median_s=model.median_s(resolution, quality, n),
        mask_url=_mask_url(model, fields, references),
        layered=fields.get("layer_decomposition") is True and model.name == "doubao-seedream-5-0-pro",
        body=fields,
    )


def check_encoding(fields: JsonObject, path: str, *, form: bool) -> None:
    """Refuse JSON where a model's page says multipart/form-data, and the other way round."""
    model = IMAGE_MODELS.get(str(fields.get("model")))
    wanted = path == EDITS and model is not None and model.multipart_edits
    if model is not None and form != wanted:
        encoding = "multipart/form-data" if wanted else "application/json"
        raise invalid(f"{path} takes {encoding} for model {model.name}")


def form_fields(parts: list[tuple[str, str]]) -> JsonObject:
    """The fields of a multipart submission as JSON has them: `image` is a list, of one URL as a rule."""
    fields: JsonObject = dict(parts)
    images = [value for name, value in parts if name == "image"]
    if images:
        fields["image"] = images
    number = fields.get("n")
    if isinstance(number, str) and number.isascii() and number.isdecimal() and len(number) < 4:
        fields["n"] = int(number)
    return fields


def _model(fields: JsonObject, path: str) -> ImageModel:
    name = model_name(fields)
    model = IMAGE_MODELS.get(name)
    if model is None:
        raise no_channel(name)
    if path == EDITS and not (model.only_edits or model.multipart_edits):
        raise invalid(f"model {name} is not available on {EDITS}; use {GENERATIONS}", "model")
    if path == GENERATIONS and model.only_edits:
        raise invalid(f"model {name} is only available on {EDITS}", "model")
    return model


def _check_types(fields: JsonObject, metadata: JsonObject) -> None:
    check_types(fields, _TEXTS, str)
    check_types(fields, ("seed", "output_compression"), int)
    check_types(fields, ("layer_decomposition",), bool)
    check_types(metadata, _METADATA_FLAGS, bool, "metadata.")


def _resolution(model: ImageModel, fields: JsonObject, metadata: JsonObject) -> str:
    place, param = (metadata, "metadata.resolution") if model.resolution_in_metadata else (fields, "resolution")
    value = place.get("resolution")
    if value is None or len(model.prices) == 1:
        return model.resolutions[0]
    return chosen(value, model.resolutions, param, any_case=not model.resolution_exact)


def _quality(model: ImageModel, fields: JsonObject, references: tuple[str, ...]) -> str:
    value = fields.get("quality")
    if model.name == "gpt-image-2" and references and "image_urls" in fields and value is not None:
        return chosen(value, ("low", "medium", "high"), "quality")  # its edits read it, and charge the same
    if value is None or not model.qualities:
        return model.quality
    return chosen(value, model.qualities, "quality")


def _size(model: ImageModel, fields: JsonObject, resolution: str) -> tuple[str, tuple[int, int]]:
    value = fields.get("size")
    if value is None:
        value = "1024x1024" if model.pixels_only else "1:1"
    if not isinstance(value, str):
        raise invalid("size must be a string", "size")
    if value == "auto" and model.sizes is not None and "auto" not in model.sizes:
        raise invalid("size auto is not supported at the moment", "size")
    if (value, resolution) in model.missing:
        raise invalid(f"size {value} is not available at {resolution}", "size")
    pixels = pixel_size(value, resolution) if model.custom_ratio else loose_pixel_size(value, resolution)
    listed = model.sizes is None or value in model.sizes or (model.custom_ratio and pixels is not None)
    if pixels is None or not listed or (model.pixels_only and not is_pixel_size(value)):
        raise invalid(f"size must be {_sizes(model)}", "size")
    return value, pixels


def _sizes(model: ImageModel) -> str:
    if model.pixels_only:
        return "WIDTHxHEIGHT in pixels, such as 1024x1024"
    if model.sizes is None:
        return "a ratio such as 16:9, or pixels such as 1024x1024"
    return f"one of {', '.join(model.sizes)}{', or another W:H up to 3:1' if model.custom_ratio else ''}"


def _n(model: ImageModel, fields: JsonObject, references: tuple[str, ...]) -> int:
    value = fields.get("n")
    n = 1 if value is None else value
    if not isinstance(n, int) or isinstance(n, bool):
        raise invalid("n must be a JSON number without a fraction", "n")
    if n not in model.counts:
        one_by_one = model.counts == tuple(range(1, len(model.counts) + 1))
        allowed = f"between 1 and {model.counts[-1]}" if one_by_one else f"one of {', '.join(map(str, model.counts))}"
        raise invalid(f"n must be {allowed}", "n")
    if model.most_in_and_out is not None and n + len(references) > model.most_in_and_out:
        raise invalid(f"references and images may be at most {model.most_in_and_out} together", "n")
    return n


def _check_background(model: ImageModel, fields: JsonObject) -> None:
    value = fields.get("background")
    if value is not None and model.backgrounds is not None:
        chosen(value, model.backgrounds, "background")


def _output_format(model: ImageModel, fields: JsonObject, metadata: JsonObject) -> str:
    options = metadata.get("imageOutputOptions")
    if isinstance(options, dict) and cast("JsonObject", options).get("mimeType") == "image/jpeg":
        return "jpeg"
    if not model.reads_output_format:
        return "png"
    compression = fields.get("output_compression")
    if isinstance(compression, int) and not 0 <= compression <= 100:
        raise invalid("output_compression must be between 0 and 100", "output_compression")
    value = fields.get("output_format")
    return "png" if value is None else chosen(value, ("png", "jpeg"), "output_format")


def _mask_url(model: ImageModel, fields: JsonObject, references: tuple[str, ...]) -> str | None:
    value = fields.get("mask_url")
    if value is None or not model.reads_mask:
        return None
    if not is_url(value):
        raise invalid("mask_url must be an http(s) URL", "mask_url")
    if not references or "image_urls" not in fields:
        raise invalid("mask_url needs image_urls: it is as large as the first of them", "mask_url")
    return cast("str", value)


def _references(model: ImageModel, fields: JsonObject, path: str) -> tuple[str, ...]:
    by_form = path == EDITS and model.multipart_edits
    places: Mapping[str, int | None] = {"image": None} if by_form else model.references
    found = {name: _urls(model, fields, name, most) for name, most in places.items()}
    given = [name for name, urls in found.items() if urls]
    if len(given) > 1 and not model.folds:
        raise invalid(f"send either {' or '.join(given)}, not both", given[-1])
    if (by_form or model.needs_reference) and not given:
        name = next(iter(places))
        raise invalid(f"{name} must hold at least one URL", name)
    return tuple(url for urls in found.values() for url in urls)


def _urls(model: ImageModel, fields: JsonObject, name: str, most: int | None) -> list[str]:
    value = fields.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise invalid(f"{name} must be a list of URLs", name)
    # Some pages type `image_urls` as [{"url": …}] while their samples send strings: both are read.
    as_objects = name == "image_urls" and not model.folds
    urls = [
        cast("JsonObject", item).get("url") if as_objects and isinstance(item, dict) else item
        for item in cast("list[object]", value)
    ]
    if not all(map(is_url, urls)):
        raise invalid(f"{name}: base64 is no longer supported, send http(s) URLs", name)
    if most is not None and len(urls) > most:
        raise invalid(f"{name} may hold at most {most} URLs", name)
    return cast("list[str]", urls)
