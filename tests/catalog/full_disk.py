from sqlalchemy.exc import OperationalError

from catalog import Catalog
from catalog.errors import CatalogUnavailableError


class Gone(Catalog):
    """A catalog whose server does not answer for the next few times that it is asked."""

    num_refusals = 0

    def _refuse(self):
        if self.num_refusals:
            self.num_refusals -= 1
            raise CatalogUnavailableError("the server is gone")

    def transaction(self):
        self._refuse()
        return super().transaction()

    def snapshot(self):
        self._refuse()
        return super().snapshot()


class FullDisk(Catalog):
    """A catalog whose disk is full for its next few writes."""

    num_refusals = 0

    def transaction(self):
        if self.num_refusals:
            self.num_refusals -= 1
            raise OperationalError("COMMIT", {}, Exception("disk full"))
        return super().transaction()
