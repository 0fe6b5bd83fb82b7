"""What the library says in Python's terms, said in those of the command line."""

from __future__ import annotations

import re
from typing import Final

_TERMS: Final = (
    (r"extra=\{'(\w+)': …\} sends it unchecked", r'"extra": {"\1": …} in a row of `toapis batch` sends it unchecked'),
    (r"(pass the file as|for a local file pass) Path\(…\) or bytes", "give the name of a local file"),
    (r"client\.find\('([^']+)'\)", r"`toapis status \1`"),
    (r"Settings\(prices=\{[^}]*\}\) or --price", "--price"),
    (r"--same-account or Journal\(path, same_account=True\)", "--same-account"),
    (r"set TOAPIS_API_KEY \(or pass api_key=…\)", "set TOAPIS_API_KEY"),
    (r"base_url\b", "--base-url (or TOAPIS_BASE_URL)"),
)


def typed(text: str) -> str:
    """An error's text, with what can be typed in the place of what can be programmed."""
    for python, words in _TERMS:
        text = re.sub(python, words, text)
    return text
