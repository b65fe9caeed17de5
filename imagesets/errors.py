"""What can go wrong with an archive of images.

ImagesetError
└── InvalidArchiveError    malformed, hostile, or no image set (names the member and the remedy)
"""


class ImagesetError(Exception):
    """A failure of the image-set reader; the message names the thing and the remedy."""


class InvalidArchiveError(ImagesetError):
    """The archive cannot be used as an image set.

    Attributes:
        member: The name in the archive (or the line of a table) that is wrong; None when it is the archive
            itself.
        remedy: What the sender can do about it.
    """

    def __init__(self, reason: str, *, remedy: str, member: str | None = None) -> None:
        subject = "" if member is None else f"{_shown(member)}: "
        super().__init__(f"{subject}{reason}; {remedy}")
        self.member = member
        self.remedy = remedy


def _shown(name: str, limit: int = 120) -> str:
    """A hostile name made fit for a log line: quoted, escaped, cut."""
    text = ascii(name)
    return text if len(text) <= limit else f"{text[:limit]}…'"
