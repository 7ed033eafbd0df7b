"""The one exception that users are meant to read."""


class SemfieldError(ValueError):
    """Bad input, reported in one sentence: what is wrong, where (file, frame, key), and what to do.

    `semfield_ns.compat` makes an uncaught one end the program with that sentence and exit code 1, without a traceback.
    """
