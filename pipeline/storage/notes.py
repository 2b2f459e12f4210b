"""Notes: small JSON objects with a checksum; a damaged one counts as absent."""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.storage import atomic

CHECKSUM = "sha256"  # key of the checksum, over the other keys


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a note in one step."""
    atomic.write(path, json.dumps({**content, CHECKSUM: _checksum(content)}, indent=1, sort_keys=True) + "\n")


def read(path: Path) -> dict[str, Any] | None:
    """Return a note's content; None if absent, or damaged (with a line on stderr).

    A JSON object without a checksum is taken as it is.
    """
    try:
        content = json.loads(path.read_bytes())
        if isinstance(content, dict) and content.pop(CHECKSUM, _checksum(content)) == _checksum(content):
            return content
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        pass
    print(f"{path} is damaged and counts as absent", file=sys.stderr, flush=True)
    return None


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
