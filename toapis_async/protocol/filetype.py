"""What kind of picture or video some bytes are: by the bytes themselves, and by a label only where they don't tell."""

from __future__ import annotations

from typing import IO, Final

from attrs import frozen


@frozen
class FileType:
    """A file format: its usual extension (with the dot) and MIME type."""

    extension: str
    mime_type: str


PNG: Final = FileType(".png", "image/png")
JPEG: Final = FileType(".jpg", "image/jpeg")
WEBP: Final = FileType(".webp", "image/webp")
GIF: Final = FileType(".gif", "image/gif")
AVIF: Final = FileType(".avif", "image/avif")
HEIC: Final = FileType(".heic", "image/heic")
BMP: Final = FileType(".bmp", "image/bmp")
TIFF: Final = FileType(".tiff", "image/tiff")
JXL: Final = FileType(".jxl", "image/jxl")
SVG: Final = FileType(".svg", "image/svg+xml")
MP4: Final = FileType(".mp4", "video/mp4")
MOV: Final = FileType(".mov", "video/quicktime")
WEBM: Final = FileType(".webm", "video/webm")

UPLOADABLE: Final = (JPEG, PNG, WEBP, GIF)
"""The pictures that the service takes as references [docs]."""
UPLOADABLE_VIDEOS: Final = (MP4, WEBM, MOV)
"""The videos that it takes [docs]."""

ENDS_EXACTLY: Final = (PNG, WEBP)
"""Of these, `looks_whole` is sure: PNG has a chunk for its end, WebP says its length."""

HEAD_BYTES: Final = 1_024
"""As much as `sniff` may need: an SVG begins with comments."""
TAIL_BYTES: Final = 64

_BRANDS: Final = {
    b"avif": AVIF, b"avis": AVIF,
    b"heic": HEIC, b"heix": HEIC, b"heim": HEIC, b"heis": HEIC, b"hevc": HEIC, b"hevx": HEIC,
    b"mif1": HEIC, b"msf1": HEIC,
    b"qt  ": MOV,
}  # fmt: skip
"""What a file of boxes calls itself; the many other brands are MP4."""
_FIRST_BOXES_OF_MOV: Final = (b"moov", b"mdat", b"wide")  # files of before there was `ftyp`
_BEGINNINGS: Final = (
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"\xff\xd8\xff", JPEG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"\xff\x0a", JXL),
    (b"\0\0\0\x0cJXL \r\n\x87\n", JXL),
)
_PNG_END: Final = b"IEND\xaeB`\x82"
_BMP_HEADER_BYTES: Final = {12, 40, 52, 56, 64, 108, 124}

_LABELS: Final = {
    known.mime_type: known
    for known in (
        PNG, JPEG, WEBP, GIF, AVIF, HEIC, BMP, TIFF, JXL, SVG, MP4, MOV, WEBM,
        FileType(".heif", "image/heif"), FileType(".ico", "image/x-icon"), FileType(".ico", "image/vnd.microsoft.icon"),
        FileType(".jp2", "image/jp2"), FileType(".psd", "image/vnd.adobe.photoshop"), FileType(".qoi", "image/qoi"),
        FileType(".exr", "image/x-exr"), FileType(".tga", "image/x-tga"), FileType(".jxr", "image/jxr"),
        FileType(".bmp", "image/x-ms-bmp"), FileType(".mkv", "video/x-matroska"), FileType(".avi", "video/x-msvideo"),
        FileType(".ogv", "video/ogg"), FileType(".mpg", "video/mpeg"), FileType(".3gp", "video/3gpp"),
    )
}  # fmt: skip
MIME_TYPES: Final = {known.extension: known.mime_type for known in _LABELS.values()}
"""By extension, with the dot."""
_ANY: Final = FileType(".bin", "application/octet-stream")
_SNIFFED: Final = (PNG, JPEG, WEBP, GIF, AVIF, BMP, JXL, MP4, WEBM)


def sniff(head: bytes) -> FileType | None:
    """The format of a file that begins with `head` (`HEAD_BYTES` of it, or all); None when it is none we know."""
    for beginning, kind in _BEGINNINGS:
        if head.startswith(beginning):
            return kind
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WEBP
    if head.startswith(b"BM") and head[6:10] == b"\0\0\0\0" and _little(head[14:18]) in _BMP_HEADER_BYTES:
        return BMP
    if head.startswith(b"\x1aE\xdf\xa3") and b"webm" in head[:80]:
        return WEBM
    if b"<svg" in head and head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and b"<html" not in head.lower():
        return SVG
    return _of_boxes(head)


def _of_boxes(head: bytes) -> FileType | None:
    name = head[4:8]
    if name == b"ftyp" and len(head) >= 12:
        brands = [head[at : at + 4] for at in range(16, min(_big(head[:4]), len(head)), 4)]
        # "mif1" is any still picture of this family; the compatible brands tell which.
        return AVIF if head[8:12] == b"mif1" and b"avif" in brands else _BRANDS.get(head[8:12], MP4)
    return MOV if name in _FIRST_BOXES_OF_MOV else None


def labelled(content_type: str, head: bytes) -> FileType | None:
    """The format that a label (`image/…` or `video/…`) gives to bytes that `sniff` does not know.

    The extension comes from a table, never from the label itself. None when the label tells of neither, when the bytes
    are the text of a page or of an error, and when they contradict the label: `sniff` would have known that format.
    """
    is_text = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in {b"", b"<", b"{", b"["}
    if is_text or not content_type.startswith(("image/", "video/")):
        return None
    kind = _LABELS.get(content_type, _ANY)
    return None if kind in _SNIFFED else kind


def looks_whole(kind: FileType, file: IO[bytes], size_bytes: int) -> bool:
    """Whether a file ends as its format ends; what follows the end is no fault.

    Sure for `ENDS_EXACTLY`. A guess for JPEG, GIF, MP4 and MOV, and not even one for the others: for bodies whose
    length nobody told.
    """
    tail = _read_at(file, max(size_bytes - TAIL_BYTES, 0), TAIL_BYTES)
    if kind is PNG:
        return _PNG_END in tail or _has_png_end(file, size_bytes)
    if kind is WEBP:
        return size_bytes >= 8 + _little(_read_at(file, 4, 4))
    if kind in {MP4, MOV}:
        return _has_boxes(file, size_bytes, {b"moov", b"mdat"})
    if kind is JPEG:
        return b"\xff\xd9" in tail
    if kind is GIF:
        return tail.rstrip(b"\0").endswith(b";")
    return True


def _has_png_end(file: IO[bytes], size_bytes: int) -> bool:
    at = 8  # after the signature
    while at + 12 <= size_bytes:
        header = _read_at(file, at, 8)
        if header[4:] == b"IEND":
            return True
        at += 12 + _big(header[:4])
    return False


def _has_boxes(file: IO[bytes], size_bytes: int, wanted: set[bytes]) -> bool:
    """Whether these boxes are there, each to its end."""
    at = 0
    missing = set(wanted)
    while missing and at + 8 <= size_bytes:
        header = _read_at(file, at, 16)
        length = _big(header[:4])
        if length == 1:
            length = _big(header[8:])
        elif length == 0:  # to the end of the file, wherever that is
            length = size_bytes - at
        if length < 8:
            return False
        at += length
        if at > size_bytes:
            return False
        missing.discard(header[4:8])
    return not missing


def _read_at(file: IO[bytes], at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def _big(number: bytes) -> int:
    return int.from_bytes(number, "big")


def _little(number: bytes) -> int:
    return int.from_bytes(number, "little")
