"""The key of a result: a digest of everything its bytes depend on."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any


def key(code: Iterable[str], settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Return 64 hex digits that change with anything a result depends on.

    Args:
        code: Digests of code (code.py).
        settings: The params that are read, as JSON values.
        inputs: Name -> sha256 of each file that is read. A path is no input; its bytes are.
    """
    facts = {"code": list(code), "settings": settings, "inputs": dict(inputs)}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
