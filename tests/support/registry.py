"""A registry of weights for tests."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import pretrained

ENTRY = {"about": "a net", "page": "https://example.org/net", "sha256": None, "url": None, "license": "MIT"}


def registered(patch: pytest.MonkeyPatch, folder: Path, **entries: dict[str, Any]) -> None:
    """Replace the project's registry by these entries, completed from ENTRY."""
    folder.mkdir()
    (folder / "all.yaml").write_text(json.dumps({name: {**ENTRY, **entry} for name, entry in entries.items()}))
    patch.setattr(pretrained, "REGISTRY", folder)
