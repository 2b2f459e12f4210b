"""The command line, called in this process."""

import sys

import pytest

from stages import cli


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of a command run in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(sys, "argv", ["actionbench", *arguments])
        cli.main()
    return int(left.value.code or 0), *capsys.readouterr()
