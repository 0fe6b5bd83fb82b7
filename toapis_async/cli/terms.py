"""Messages of the library, which name Python arguments, rewritten to name command-line options."""

from __future__ import annotations

import re
from typing import Final

_TERMS: Final = (
    (
        r"extra=\{'([\w.]+)': …\} sends it unchecked",
        r'--extra \1=… of `toapis generate`, or "extra": {"\1": …} in a row of `toapis batch`, sends it unchecked',
    ),
    (r"(pass the file as|for a local file pass) Path\(…\) or bytes", "give the name of a local file"),
    (r"client\.find\('([^']+)'\)", r"`toapis status \1`"),
    (r"Settings\(prices=\{[^}]*\}\) or --price", "--price"),
    (r"--same-account or Journal\(path, same_account=True\)", "--same-account"),
    (r"set TOAPIS_API_KEY \(or pass api_key=…\)", "set TOAPIS_API_KEY"),
    (r"base_url\b", "--base-url (or TOAPIS_BASE_URL)"),
)


def in_cli_terms(text: str) -> str:
    """The text of an error with Python arguments and calls replaced by the options and commands that do the same."""
    for python, option in _TERMS:
        text = re.sub(python, option, text)
    return text
