"""What a picture says of how it was made, written into its file without touching its pixels.

PNG has text chunks; JPEG and WebP have XMP. The bytes of the picture itself are copied as they are: nothing is encoded
anew. A file that carries a C2PA manifest is left alone, since any change breaks its signature.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape, quoteattr

from toapis_async.protocol.filetype import HEAD_BYTES, JPEG, PNG, WEBP, sniff

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KEYWORD: Final = "toapis"
"""Of the PNG chunk that holds everything as JSON; the XMP property has the same name."""
_NAMESPACE: Final = "https://toapis.com/ns/1.0/"
_XMP_ID: Final = b"http://ns.adobe.com/xap/1.0/\0"
_MOST_SEGMENT_BYTES: Final = 65_533  #: of a JPEG segment's content
_HAS_XMP, _HAS_ALPHA = 0x04, 0x10  #: flags of a WebP file
_SIGNED: Final = (b"c2pa", b"jumb")
"""What a C2PA manifest has in it, in whichever format: the names of its box and of its label."""


def described(content: bytes, facts: Mapping[str, Any]) -> bytes | None:
    """The file with `facts` in it; None when it can't hold them: another format, broken, signed (C2PA), or with XMP of
    its own."""
    if all(mark in content for mark in _SIGNED):
        return None
    kind = sniff(content[:HEAD_BYTES])
    write = None if kind is None else _WRITERS.get(kind)
    try:
        return None if write is None else write(content, facts)
    except (ValueError, struct.error, IndexError):
        return None


def _png(content: bytes, facts: Mapping[str, Any]) -> bytes | None:
    end_of_header = 8 + 12 + 13
    if content[12:16] != b"IHDR":
        raise ValueError("no IHDR")
    texts = {
        "Description": facts.get("prompt"),
        "Creation Time": facts.get("completed_at"),
        "Software": facts.get("software"),
        KEYWORD: json.dumps(facts, ensure_ascii=False),
    }
    chunks = b"".join(_text_chunk(name, str(text)) for name, text in texts.items() if text)
    return content[:end_of_header] + chunks + content[end_of_header:]


def _text_chunk(keyword: str, text: str) -> bytes:
    data = b"iTXt" + keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode("utf-8", "replace").replace(b"\0", b"?")
    return struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))


def _jpeg(content: bytes, facts: Mapping[str, Any]) -> bytes | None:
    place = 2
    for marker, start, end in _segments(content):
        if marker == 0xE1 and content[start : start + len(_XMP_ID)] == _XMP_ID:
            return None
        if marker in {0xE0, 0xE1}:  # JFIF and EXIF want to be first
            place = end
    packet = _XMP_ID + _xmp(facts)
    if len(packet) > _MOST_SEGMENT_BYTES:
        return None
    return content[:place] + b"\xff\xe1" + struct.pack(">H", len(packet) + 2) + packet + content[place:]


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """The segments before the picture: marker, and where the content begins and ends."""
    place = 2
    while content[place] == 0xFF and content[place + 1] not in {0xDA, 0xD9}:
        (length,) = struct.unpack_from(">H", content, place + 2)
        yield content[place + 1], place + 4, place + 2 + length
        place += 2 + length


def _webp(content: bytes, facts: Mapping[str, Any]) -> bytes | None:
    chunks = list(_chunks(content))
    names = [name for name, _ in chunks]
    if b"XMP " in names:
        return None
    name, data = chunks[0]
    if name == b"VP8X":
        header = bytes([data[0] | _HAS_XMP]) + data[1:]
        chunks = chunks[1:]
    else:
        width, height, has_alpha = _webp_size(name, data)
        flags = _HAS_XMP | (_HAS_ALPHA if has_alpha else 0)
        header = bytes([flags, 0, 0, 0]) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    written = [(b"VP8X", header), *chunks, (b"XMP ", _xmp(facts))]
    body = b"".join(name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in written)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 12
    while place + 8 <= len(content):
        (length,) = struct.unpack_from("<I", content, place + 4)
        if place + 8 + length > len(content):
            raise ValueError("cut short")
        yield content[place : place + 4], content[place + 8 : place + 8 + length]
        place += 8 + length + length % 2


def _webp_size(name: bytes, data: bytes) -> tuple[int, int, bool]:
    """Width, height and whether it is transparent, of the one chunk that a simple file has."""
    if name == b"VP8L" and data[0] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, 1)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    if name == b"VP8 " and data[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 6)
        return width & 0x3FFF, height & 0x3FFF, False
    raise ValueError("no picture")


def _xmp(facts: Mapping[str, Any]) -> bytes:
    """The facts as XMP: what is standard by its standard name, and everything as JSON."""
    prompt, made_at = _plain(str(facts.get("prompt") or "")), facts.get("completed_at")
    attributes = {"xmp:CreatorTool": facts.get("software"), "xmp:CreateDate": made_at}
    attributes[f"{KEYWORD}:generation"] = _plain(json.dumps(facts, ensure_ascii=False))
    named = " ".join(f"{name}={quoteattr(str(value))}" for name, value in attributes.items() if value)
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        f' xmlns:{KEYWORD}="{_NAMESPACE}" {named}><dc:description><rdf:Alt>'
        f'<rdf:li xml:lang="x-default">{escape(prompt)}</rdf:li></rdf:Alt></dc:description>'
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode("utf-8", "replace")


def _plain(text: str) -> str:
    """Without the characters that XML can't hold."""
    return "".join(c if c >= " " or c in "\t\n\r" else " " for c in text if c not in "\ufffe\uffff")


_WRITERS: Final = {PNG: _png, JPEG: _jpeg, WEBP: _webp}
DESCRIBED_SUFFIXES: Final = frozenset(kind.extension for kind in _WRITERS)
"""Extensions of the files that can hold facts."""
