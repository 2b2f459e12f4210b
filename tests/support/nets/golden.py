"""Golden values of reference implementations."""

import numpy as np
import pytest
from torch import Tensor

from tests.support.real_data import TEST_DATA

GOLDEN = TEST_DATA / "golden"


# prefix of our names -> prefix of the authors'
ACTION_NAMES = {
    "shift.": "action_shift.",
    "paths.ste.conv.": "action_p1_conv1.",
    "paths.ce.squeeze.": "action_p2_squeeze.",
    "paths.ce.conv.": "action_p2_conv1.",
    "paths.ce.expand.": "action_p2_expand.",
    "paths.me.squeeze.": "action_p3_squeeze.",
    "paths.me.norm.": "action_p3_bn1.",
    "paths.me.conv.": "action_p3_conv1.",
    "paths.me.expand.": "action_p3_expand.",
}


def stored(pattern: str) -> list:
    """Return the golden files of a pattern; without any, one skipped parameter."""
    missing = pytest.param(None, marks=pytest.mark.skip(reason=f"no {pattern} in {GOLDEN}"))
    return [pytest.param(path, id=path.stem) for path in sorted(GOLDEN.glob(pattern))] or [missing]


def close(ours: Tensor, golden: np.ndarray) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), golden, rtol=0, atol=1e-5)
