"""
Keys and values in JSON: as text where they are UTF-8, else in Base64 under
another name.
"""

from __future__ import annotations

from base64 import b64encode


def text_field(name: str, data: bytes) -> dict[str, str]:
    """C{{NAME: text}}, or C{{NAME_base64: ...}}."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(data).decode("ascii")}
