"""The one exception for what a user can mend."""


class UserError(Exception):
    """A mistake in what the user gave: one line that names the thing and the alternatives.

    The stages and the command line print it without a traceback and leave with exit code 2.
    """
