"""What can go wrong with a bulk job, one class per thing a caller can do differently.

BulkError
├── InputError       the input cannot be read as a folder, a tar or a list of images
├── OutputError      the output is taken, in use, of no known form, or cannot be written
├── AnswerError      the model cannot answer: unknown, expired, damaged, asked wrongly, out of memory
├── ResumeError      what lies there belongs to another job than the one asked for
└── RayError         Ray is not installed, cannot be reached, or gave up
"""


class BulkError(Exception):
    """A failure of a bulk job; the message names the thing, the remedy what to do about it."""

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class InputError(BulkError):
    """The input is not there, in no known form, cut short, or a bomb."""


class OutputError(BulkError):
    """The output cannot be written where it was asked for."""


class AnswerError(BulkError):
    """The model cannot answer at all; an image that it cannot answer for gets a row that says so."""


class ResumeError(BulkError):
    """The unfinished job that lies beside the output is another one, or cannot be gone on with."""


class RayError(BulkError):
    """The job could not be spread over Ray."""
