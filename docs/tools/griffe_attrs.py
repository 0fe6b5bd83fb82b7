"""For the API reference: the fields of an attrs class as one table, instead of a heading each.

Griffe knows dataclasses, not attrs. Its extension griffe-fieldz does, by importing the classes; it describes a field
that has a factory with the factory's docstring (`dict`'s, under `raw`), and shows defaults where values only come out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import griffe

if TYPE_CHECKING:
    import ast
    from collections.abc import Collection

ATTRS_CLASS = {"attrs.frozen", "attrs.define"}


class AttrsFields(griffe.Extension):
    """Moves the fields of attrs classes into their docstrings; those `made_by_users` are shown with their defaults."""

    def __init__(self, made_by_users: Collection[str] = ()) -> None:
        super().__init__()
        self._made_by_users = made_by_users

    def on_class_members(
        self,
        *,
        node: ast.AST | griffe.ObjectNode,
        cls: griffe.Class,
        agent: griffe.Visitor | griffe.Inspector,
        **_: Any,
    ) -> None:
        """Called by Griffe when the members of a class are complete."""
        if cls.docstring is None or not any(d.callable_path in ATTRS_CLASS for d in cls.decorators):
            return
        own = [member for member in cls.members.values() if isinstance(member, griffe.Attribute)]  # none of its bases
        # Neither properties nor class variables.
        fields = [a for a in own if a.annotation is not None and "instance-attribute" in a.labels]
        for field in fields:
            cls.del_member(field.name)
        shown = [field for field in fields if not field.name.startswith("_")]
        if cls.name in self._made_by_users:
            cls.docstring.parsed.append(griffe.DocstringSectionParameters([_parameter(field) for field in shown]))
        elif shown:
            cls.docstring.parsed.append(griffe.DocstringSectionAttributes([_attribute(field) for field in shown]))


def _parameter(field: griffe.Attribute) -> griffe.DocstringParameter:
    return griffe.DocstringParameter(
        field.name, annotation=field.annotation, description=_description(field), value=_default(field.value)
    )


def _attribute(field: griffe.Attribute) -> griffe.DocstringAttribute:
    return griffe.DocstringAttribute(field.name, annotation=field.annotation, description=_description(field))


def _description(field: griffe.Attribute) -> str:
    return field.docstring.value if field.docstring else ""


def _default(value: str | griffe.Expr | None) -> str | None:
    """What a field is when it is not given; None when it must be."""
    if not isinstance(value, griffe.ExprCall) or value.canonical_path != "attrs.field":
        return None if value is None else str(value)
    given = {argument.name: argument.value for argument in value.arguments if isinstance(argument, griffe.ExprKeyword)}
    if "factory" in given:
        return f"{str(given['factory']).partition('[')[0]}()"
    return str(given["default"]) if "default" in given else None
