"""The one error that is meant for the person who typed the command."""


class UserError(Exception):
    """Bad input. The message is one line: the file or key, what was found, what is allowed.

    The command line prints it and exits with code 2; it never shows a traceback for it.
    """
