"""What can go wrong in the catalog.

CatalogError
├── AlreadyExistsError   the name is taken
├── NoSuchRowError       nothing of that name
├── StillInUseError      it cannot go (or start) while something else needs it
├── InvalidNameError     a base, model or task may not be called that
├── RollbackError        the head cannot move there
├── DatasetGoneError     the data set was known, but its bytes were released
├── StaleHeadError       the head moved since the work began: do the work again on the new head
├── SweptMeanwhileError  a sweep removed a blob between its writing and its naming: write it again
├── StaleAttemptError    another attempt owns the job now: stop and change nothing
├── QuotaExceededError   the key may have no more of it
├── PepperMissingError   API keys cannot be checked or made: their pepper is missing
├── OutdatedSchemaError  the database was written by another version of condu
└── CatalogUnavailableError  the database refused (full disk, locked, gone): may be retried
"""


class CatalogError(Exception):
    """Any failure of the catalog that a caller can do something about."""


class AlreadyExistsError(CatalogError):
    """The name is taken."""


class NoSuchRowError(CatalogError):
    """Nothing of that name is in the catalog."""


class StillInUseError(CatalogError):
    """It cannot be removed or started while something else needs it."""


class InvalidNameError(CatalogError):
    """A base, model or task may not be called that."""


class RollbackError(CatalogError):
    """The head cannot be moved to that revision."""


class DatasetGoneError(CatalogError):
    """The data set is known, but its bytes were released after a job or expired."""


class StaleHeadError(CatalogError):
    """The head of the model moved since the work began; fold again on the new head."""


class SweptMeanwhileError(CatalogError):
    """A sweep removed a blob that was written but not named yet; write it again, then name it."""


class StaleAttemptError(CatalogError):
    """Another attempt owns the job by now; this one must stop and change nothing."""


class QuotaExceededError(CatalogError):
    """The key in whose name it was asked may have no more of it."""

    def __init__(self, quota: str, *, limit: int, used: int, wanted: int) -> None:
        super().__init__(
            f"the key may have {limit} {quota}, {used} are in use, and {wanted} more were asked for"
        )
        self.quota = quota
        self.limit = limit
        self.used = used


class PepperMissingError(CatalogError):
    """API keys can be neither made nor checked, for their pepper is missing or another."""


class OutdatedSchemaError(CatalogError):
    """The database is not at the schema that this version of condu writes."""


class CatalogUnavailableError(CatalogError):
    """The database refused to work: its disk is full, it is locked, or it is gone; try again later."""
