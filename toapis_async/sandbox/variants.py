"""The same answers in other forms seen live: other statuses, result shapes, codes. Pure.

Each function takes the published body and the faults of the request, and returns the body to send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from toapis_async.sandbox.answers import Answer
from toapis_async.sandbox.faults import STATUS_WORDS, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from toapis_async.sandbox.jobs import JsonObject

_FINAL = ("completed", "failed")
_NUMERIC_TYPES: Final = {
    401: "authentication_error",
    402: "payment_required",
    404: "not_found_error",
    429: "rate_limit_error",
}


def task_variant(body: JsonObject, faults: Container[Fault]) -> JsonObject:
    """A task's body under the faults of this answer and the traits of its task."""
    body = dict(body)
    if body["status"] not in _FINAL:
        for fault, word in STATUS_WORDS.items():
            if fault in faults:
                body["status"] = word
    if "result" in body:
        _reshape_result(body, faults)
    if "error" in body:
        _reshape_error(body, faults)
    if Fault.TASK_ID_BESIDE_ID in faults:
        body |= {"task_id": body["id"], "id": f"video_{str(body['id'])[-12:]}", "object": "video"}
    elif Fault.TASK_ID_FOR_ID in faults:
        body["task_id"] = body.pop("id")
    if Fault.WITHOUT_METADATA in faults:
        body.pop("metadata", None)
    return body


def error_variant(answer: Answer, faults: Container[Fault]) -> Answer:
    """An error answer with its code as a number or empty."""
    if answer.status < 400 or not isinstance(answer.body, dict) or "error" not in answer.body:
        return answer
    fields = dict(cast("JsonObject", answer.body["error"]))
    if Fault.NUMERIC_CODES in faults:
        fields["code"] = answer.status
        fields["type"] = _NUMERIC_TYPES.get(answer.status, "invalid_request_error")
    elif Fault.EMPTY_CODES in faults:
        fields["code"] = ""
    return Answer(answer.status, {**answer.body, "error": fields}, answer.headers)


def _reshape_result(body: JsonObject, faults: Container[Fault]) -> None:
    for fault, shape in _SHAPES.items():
        if fault in faults:
            result = cast("dict[str, list[dict[str, str]]]", body.pop("result"))
            body |= shape([item["url"] for item in result["data"]])
            return


def _reshape_error(body: JsonObject, faults: Container[Fault]) -> None:
    fields = dict(cast("JsonObject", body["error"]))
    if Fault.NUMERIC_CODES in faults:
        fields["code"] = 422
    elif Fault.EMPTY_CODES in faults:
        fields["code"] = ""
    body["error"] = fields
    if Fault.TASK_FAILS_AT_100 in faults:
        body["progress"] = 100
        fields |= {"code": "upstream_timeout", "message": "the upstream took too long"}
    if Fault.TASK_FAILS_FAIL_REASON in faults:
        del body["error"]
        body["fail_reason"] = fields["message"]
    elif Fault.TASK_FAILS_ERROR_TEXT in faults:
        body["error"] = fields["message"]
    elif Fault.TASK_FAILS_MESSAGE in faults:
        del body["error"]
        body["message"] = fields["message"]


def _objects(urls: list[str]) -> list[dict[str, str]]:
    return [{"url": url} for url in urls]


def _with_extra_fields(urls: list[str]) -> JsonObject:
    items = [
        {"url": url, "size": "1024x1024", "output_format": "png", "z_index": index} for index, url in enumerate(urls)
    ]
    return {"result": {"type": "image", "data": items}}


_SHAPES: Final[Mapping[Fault, Callable[[list[str]], JsonObject]]] = {
    Fault.RESULT_TOP_URL: lambda urls: {"url": urls[0]},
    Fault.RESULT_TOP_DATA: lambda urls: {"data": _objects(urls)},
    Fault.RESULT_OUTPUT_STRINGS: lambda urls: {"output": urls},
    Fault.RESULT_OUTPUT_OBJECTS: lambda urls: {"output": _objects(urls)},
    Fault.RESULT_OUTPUTS_STRINGS: lambda urls: {"outputs": urls},
    Fault.RESULT_OUTPUTS_OBJECTS: lambda urls: {"outputs": _objects(urls)},
    Fault.RESULT_IMAGES_STRINGS: lambda urls: {"images": urls},
    Fault.RESULT_IMAGES_OBJECTS: lambda urls: {"images": _objects(urls)},
    Fault.RESULT_EXTRA_FIELDS: _with_extra_fields,
}
