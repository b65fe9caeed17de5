from sqlalchemy.exc import OperationalError

from catalog import Catalog


class FullDisk(Catalog):
    """A catalog whose disk is full for its next few writes."""

    num_refusals = 0

    def transaction(self):
        if self.num_refusals:
            self.num_refusals -= 1
            raise OperationalError("COMMIT", {}, Exception("disk full"))
        return super().transaction()
