"""What a benchmark can fail with that a person can do something about.

BenchError    names the thing and the remedy; `cli/` shows both and ends with the exit code for failures
"""


class BenchError(Exception):
    """A benchmark cannot go on.

    Attributes:
        message: What is wrong, with the name of the thing.
        remedy: What to do about it.
    """

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(f"{message}; {remedy}")
        self.message = message
        self.remedy = remedy
