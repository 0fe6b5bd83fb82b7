"""What each known model takes, by its page: what it calls its references, and the values of its fields.

A table is no promise of the service: what a page does not list is left alone, an unknown model or field passes, and
`extra` is the way past every check.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast

from attrs import frozen

from toapis_async.errors import InvalidRequest
from toapis_async.request.base import anyway, short

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from toapis_async.request.base import Kind

Value: TypeAlias = str | int | bool


@frozen
class Rule:
    """The values that a model takes in one field."""

    allowed: str  #: in words
    choices: tuple[Value, ...] = ()
    least: int | None = None  #: of a whole number; for text `most` is its length
    most: int | None = None
    pattern: str | None = None
    default: Value | None = None  #: what the service takes when the field is left out
    exact: bool = False  #: whether the letter case counts

    def takes(self, value: object) -> bool:
        """Whether a value is one of them. A value of another type than the rule is about is none."""
        if any(_same(value, choice, exact=self.exact) for choice in self.choices):
            return True
        if self.pattern is not None:
            return isinstance(value, str) and re.fullmatch(self.pattern, value) is not None
        if self.least is not None:
            return type(value) is int and self.least <= value and (self.most is None or value <= self.most)
        return self.most is not None and isinstance(value, str) and len(value) <= self.most


def _same(value: object, choice: Value, *, exact: bool) -> bool:
    if isinstance(value, str) and isinstance(choice, str) and not exact:
        return value.casefold() == choice.casefold()
    return type(value) is type(choice) and value == choice


def one_of(*choices: Value, default: Value | None = None, exact: bool = False) -> Rule:
    """One of these values; texts in any letter case unless `exact`."""
    return Rule(", ".join(map(str, choices)), choices, default=default, exact=exact)


def whole(least: int, most: int | None, *also: int, default: Value | None = None) -> Rule:
    """A whole number in a range, or one of a few beside it."""
    words = f"a whole number from {least}" + ("" if most is None else f" to {most}")
    others = "".join(f", or {number}" for number in also)
    return Rule(words + others, also, least=least, most=most, default=default)


def flag(default: bool | None = None) -> Rule:
    """True or False."""
    return Rule("True or False", (True, False), default=default)


def text(most: int) -> Rule:
    """Text of so many characters."""
    return Rule(f"text of at most {most:,} characters", most=most)


def shaped(allowed: str, pattern: str, default: str | None = None) -> Rule:
    """Text of a shape, said in words."""
    return Rule(allowed, pattern=pattern, default=default)


@frozen
class KnownModel:
    """One model as its page describes it."""

    name: str
    kind: Kind
    rules: Mapping[str, Rule]  #: by field; `metadata.resolution` for a member of `metadata`
    references: Mapping[str, int | None]  #: the names it lists for references, with the most each takes
    needs: tuple[str, ...] = ()  #: fields of which one must be given, beside those that no model can do without
    edits: Literal["only", "multipart"] | None = None  #: of `POST /v1/images/edits`: its only endpoint, or as a form
    roles: Mapping[str, Mapping[str, int | None]] = {}  #: of videos: by field, the most of each role

    def default_of(self, name: str) -> Value | None:
        """What the service takes for a field that is left out, where the page says so."""
        rule = self.rules.get(name)
        return rule.default if rule is not None else None


def facts_of(model: KnownModel) -> tuple[tuple[str, str], ...]:
    """What a model takes, for people: pairs of a field and what its page says of it."""
    facts = [(name, rule.allowed + _default_in_words(rule)) for name, rule in model.rules.items()]
    for name, most in model.references.items():
        facts.append((name, "links or files" if most is None else f"at most {most} links or files"))
    for name, roles in model.roles.items():
        facts.append((name, ", ".join(_role_in_words(role, most) for role, most in roles.items())))
    if model.kind == "image" and not model.references:
        facts.append(("references", "none"))
    if model.needs:
        facts.append(("needed", " or ".join(model.needs)))
    if model.edits is not None:
        facts.append(("endpoint", "edits" if model.edits == "only" else "generations, or edits when you say so"))
    return tuple(facts)


def _role_in_words(role: str, most: int | None) -> str:
    return (role or "any role") + ("" if most is None else f" (at most {most})")


def _default_in_words(rule: Rule) -> str:
    return "" if rule.default is None else f" (left out: {rule.default})"


def table(models: Iterable[KnownModel]) -> dict[str, KnownModel]:
    """Models by name."""
    return {model.name: model for model in models}


def check_fields(model: KnownModel, fields: Mapping[str, object]) -> None:
    """Refuse a value that the model's page rules out, naming the model, what it takes and the way past the check."""
    for name, rule in model.rules.items():
        value = member_of(fields, name)
        if value is None or rule.takes(value):
            continue
        if name == "prompt" and isinstance(value, str):
            value = f"{len(value):,} characters"
            raise InvalidRequest(f"prompt has {value}; {model.name} takes {rule.allowed}: shorten it", field=name)
        raise InvalidRequest(
            f"{name}={short(value)}: {model.name} takes {rule.allowed}; {anyway(name)}", field=name.partition(".")[0]
        )


def check_needed(model: KnownModel, fields: Mapping[str, object]) -> None:
    """Refuse a request without what the model can't do without."""
    if model.needs and not any(member_of(fields, name) for name in model.needs):
        raise InvalidRequest(
            f"{model.name} works from {' or '.join(model.needs)}, which is missing; {anyway(model.needs[0])}",
            field=model.needs[0],
        )


def check_count(model: KnownModel, name: str, count: int) -> None:
    """Refuse more references than the model reads, or any to a model that reads none: they would be paid for, and the
    picture made without them."""
    if count and not model.references:
        raise InvalidRequest(f"{model.name} takes no references; {anyway(name)}", field=name)
    most = model.references.get(name)
    if most is not None and count > most:
        raise InvalidRequest(
            f"{name} has {count} members: {model.name} takes at most {most}; {anyway(name)}", field=name
        )


def check_roles(model: KnownModel, name: str, most: Mapping[str, int | None], roles: Sequence[object]) -> None:
    """Refuse a role that the model does not read, and more of one than it takes; `most` of "" is that of all."""
    for role in dict.fromkeys(roles):
        if "" not in most and role not in most:
            raise InvalidRequest(
                f"{name} has the role {short(role)}: {model.name} takes {', '.join(most)}; {anyway(name)}", field=name
            )
    for role, limit in most.items():
        count = roles.count(role) if role else len(roles)
        if limit is not None and count > limit:
            what = f"{count} of {role}" if role else f"{count} members"
            raise InvalidRequest(f"{name} has {what}: {model.name} takes at most {limit}; {anyway(name)}", field=name)


def member_of(fields: Mapping[str, object], name: str) -> object:
    """A field, or a member of `metadata`."""
    if "." not in name:
        return fields.get(name)
    outer, _, inner = name.partition(".")
    value = fields.get(outer)
    return cast("Mapping[str, object]", value).get(inner) if isinstance(value, Mapping) else None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like another; None when none is like it."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return near[0] if near else None


RATIO: Final = r"[0-9]{1,5}:[0-9]{1,5}"
PIXELS: Final = r"[1-9][0-9]{1,4}[xX][1-9][0-9]{1,4}"
