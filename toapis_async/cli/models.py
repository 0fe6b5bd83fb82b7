"""`toapis models` and `prices`: what the service offers and charges, and what one model takes."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, cast

from attrs import asdict

from toapis_async.cli.account import known_sandbox
from toapis_async.cli.output import ALL_DONE, SOME_FAILED
from toapis_async.cli.session import Session
from toapis_async.cli.table import aligned
from toapis_async.errors import ClientStateError
from toapis_async.request.image_models import IMAGE_MODELS
from toapis_async.request.video_models import VIDEO_MODELS

if TYPE_CHECKING:
    from toapis_async.cli.options import Options
    from toapis_async.cli.output import Output
    from toapis_async.models import Model, Price
    from toapis_async.request import Kind
    from toapis_async.request.catalogue import KnownModel

_CATALOGUE = {**IMAGE_MODELS, **VIDEO_MODELS}


async def models(options: Options, out: Output, kind: str) -> int:
    """Print the models that the service offers. Returns the exit code."""
    async with Session(options, out).opened(known_sandbox()) as session:
        found = await session.client.models(kind)
    for model, line in zip(found, aligned([_model_line(model) for model in found]), strict=True):
        out.result(line)
        out.record({**model.raw, "id": model.id})
    if not found:
        out.note(f"the service offers no models of type {kind}")
    return ALL_DONE


async def model(options: Options, out: Output, name: str) -> int:
    """Print what a model takes by its page, and whether the service offers it to this key. Returns the exit code."""
    known = _CATALOGUE.get(name)
    if known is not None:
        out.result(f"{name}  ({known.kind})")
        for line in aligned(_field_lines(known)):
            out.result(f"  {line}")
    try:
        session = Session(options, out)
    except ClientStateError:
        offered = None
        out.note("with TOAPIS_API_KEY set, this also says whether the service offers it to your key")
    else:
        async with session.opened(known_sandbox()):
            kinds = [known.kind] if known is not None else ["image", "video"]
            offered = {found.id: found for kind in kinds for found in await session.client.models(kind)}
    record: dict[str, Any] = {"id": name} if known is None else _record(known)
    if offered is not None:
        out.note(f"the service offers {name} to this key" if name in offered else f"the service does not offer {name}")
        record |= {"offered": name in offered}
    out.record(record)
    if known is not None or name in (offered or {}):
        return ALL_DONE
    near = difflib.get_close_matches(name, {*_CATALOGUE, *(offered or {})}, n=1)
    out.error(f"no model {name} is known{f': did you mean {near[0]}?' if near else '; `toapis models` lists them'}")
    return SOME_FAILED


async def prices(options: Options, out: Output, name: str | None, kind: Kind) -> int:
    """Print the prices of this key, of one model or of all. Returns the exit code."""
    async with Session(options, out).opened(known_sandbox()) as session:
        found = await session.client.prices(name, kind)
    for price, line in zip(found, aligned([_price_line(price) for price in found], right={2}), strict=True):
        out.result(line)
        out.record({**asdict(price, filter=lambda a, _: a.name != "raw"), "unit_price": str(price.unit_price)})
    if not found:
        out.note(f"the service states no price of {name or f'any model of type {kind}'}")
    return ALL_DONE


def _price_line(price: Price) -> tuple[str, str, str, str]:
    """The model, what the price holds for, the amount, and of what."""
    conditions = " ".join(f"{name}={value}" for name, value in price.conditions.items())
    return price.model, conditions, f"${price.unit_price:f}", f"per {price.unit or price.charge_type}".replace("_", " ")


def _field_lines(known: KnownModel) -> list[tuple[str, str, str]]:
    lines = [
        (name, rule.allowed, "" if rule.default is None else f"default {rule.default}")
        for name, rule in known.rules.items()
    ]
    lines += [(name, _most(most), "") for name, most in known.references.items()]
    for name, roles in known.roles.items():
        lines += [(name, f"{role}: {_most(most)}", "") for role, most in roles.items()]
    return lines


def _most(most: int | None) -> str:
    return "references" if most is None else f"at most {most}"


def _record(known: KnownModel) -> dict[str, Any]:
    fields = {name: {"allowed": rule.allowed, "default": rule.default} for name, rule in known.rules.items()}
    roles = {name: dict(roles) for name, roles in known.roles.items()}
    return {
        "id": known.name,
        "type": known.kind,
        "fields": fields,
        "references": dict(known.references),
        "roles": roles,
    }


def _model_line(model: Model) -> tuple[str, str, str]:
    """Its id, who made it, and which requests it takes, where the service says."""
    owner, kinds = model.raw.get("owned_by"), model.raw.get("supported_endpoint_types")
    requests = ", ".join(map(str, cast("list[object]", kinds))) if isinstance(kinds, list) else ""
    return model.id, owner if isinstance(owner, str) else "", requests
