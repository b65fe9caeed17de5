"""The secret that API keys are hashed with, beside the database: who steals the catalog alone has no key."""

import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path

from catalog.errors import PepperMissingError
from catalog.settings import Settings

PEPPER_FILE = "pepper"
PEPPER_BYTES = 32


class Pepper:
    """Hashes secrets; never shows itself.

    Attributes:
        mark: Tells peppers apart without telling anything of them; kept with every key.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.mark = self.digest("mark", "")[:16]

    def __repr__(self) -> str:
        return f"Pepper(mark={self.mark!r})"

    def digest(self, purpose: str, text: str) -> str:
        """HMAC-SHA256 of the text for one purpose, in hex."""
        return hmac.new(self._secret, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def open_pepper(settings: Settings) -> Pepper | None:
    """The installation's pepper: from CONDU_KEY_PEPPER, else from the data folder; None where there is none.

    Raises:
        PepperMissingError: The file is there and cannot be read, or is no pepper.
    """
    if settings.key_pepper is not None:
        return Pepper(settings.key_pepper.get_secret_value().encode())
    file = settings.data / PEPPER_FILE
    try:
        text = file.read_text()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PepperMissingError(f"the pepper of the API keys, {file}, cannot be read: {error}") from error
    if len(text.strip()) != 2 * PEPPER_BYTES:
        raise PepperMissingError(
            f"the pepper of the API keys, {file}, is damaged: restore it, or remove it and make all keys anew"
        )
    return Pepper(text.strip().encode())


def make_pepper(settings: Settings) -> Pepper:
    """The installation's pepper, made now if there is none; two who make it at once get the same.

    Raises:
        PepperMissingError: Several machines share the catalog, so that each would make its own.
    """
    found = open_pepper(settings)
    if found is not None:
        return found
    if settings.database_url is not None and not settings.database_url.startswith("sqlite"):
        raise PepperMissingError(
            "several machines may share this catalog, and all need the same pepper: set CONDU_KEY_PEPPER for "
            "each of them, to what `python3 -c 'import secrets; print(secrets.token_hex(32))'` prints"
        )
    settings.data.mkdir(parents=True, exist_ok=True)
    _write_once(settings.data / PEPPER_FILE, secrets.token_hex(PEPPER_BYTES))
    made = open_pepper(settings)
    assert made is not None  # noqa: S101 - written above
    return made


def _write_once(file: Path, text: str) -> None:
    """The file, whole and for its owner only; left as it is where it is there already."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".pepper-")  # mode 0600
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(name, file)
        except FileExistsError:
            return
    finally:
        Path(name).unlink()
