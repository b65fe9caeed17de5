"""How much of an archive is believed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ArchiveLimits:
    """Bounds that an archive must keep; each has a default wide enough for 100,000 photographs.

    Attributes:
        max_members: Entries of any kind.
        max_total_bytes: All files together, unpacked.
        max_member_bytes: One file, unpacked.
        max_ratio: Unpacked bytes over archive bytes. JPEG, PNG and WEBP hardly shrink, so a real set stays
            near 1 (tiny images in a gzipped tar reach about 10, because of tar's padding).
        ratio_floor_bytes: Below this many unpacked bytes the ratio is not looked at.
        max_name_bytes: A member's whole path, UTF-8.
        max_part_bytes: One component of a path, UTF-8.
        max_classes: Distinct classes.
        max_table_bytes: `classes.txt` or `labels.csv`, unpacked.
    """

    max_members: int = 200_000
    max_total_bytes: int = 64 << 30
    max_member_bytes: int = 256 << 20
    max_ratio: float = 100.0
    ratio_floor_bytes: int = 8 << 20
    max_name_bytes: int = 1024
    max_part_bytes: int = 255
    max_classes: int = 10_000
    max_table_bytes: int = 64 << 20
