"""From an archive to images that can be learned from: unpacked, screened, split; done once, found again."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.job_queue import JobFailedError
from imagesets import ArchiveLimits, ImageIndex, ImageRef, draw_shots, split, unpack_archive
from vlm.preprocessing import Preprocessing
from worker.datasets.pixels import Pictures, Rejected, screen_images
from worker.files import read_json, write_json

MARKER_NAME = "prepared.json"
NUM_REJECTED_SHOWN = 20
CACHE_LIMIT_BYTES = 1 << 30

OnImages = Callable[[str, int, int], None]
"""Called with (what is being done, images done, images in all); may raise to stop."""


@dataclass(frozen=True)
class ScreeningRules:
    """What decides which images are used, and for what.

    Attributes:
        limits: Bounds on the archive.
        preprocessing: The base's own.
        max_pixels: Larger images are rejected.
        test_fraction: Share held out where the archive has no split.
        seed: Of that draw, and of the draw of the shots.
        cache_limit_bytes: Up to this size the decoded pictures are kept on disk.
        shots: Training images a class, drawn after the split; None takes all.
    """

    limits: ArchiveLimits
    preprocessing: Preprocessing
    max_pixels: int
    test_fraction: float
    seed: int
    cache_limit_bytes: int = CACHE_LIMIT_BYTES
    shots: int | None = None


@dataclass(frozen=True)
class PreparedImages:
    """The images of a task that can be decoded, and their split.

    Attributes:
        classes: Names by class number.
        images: All of them, by position.
        train: Positions of those to train on.
        test: Positions of those held out.
        rejected: The first broken images, by name in the archive.
        num_rejected: How many were broken.
        cache: The file of decoded pictures, if they fit.
    """

    classes: tuple[str, ...]
    images: tuple[ImageRef, ...]
    train: tuple[int, ...]
    test: tuple[int, ...]
    rejected: tuple[Rejected, ...]
    num_rejected: int
    cache: Path | None

    def pictures(self, preprocessing: Preprocessing, *, max_pixels: int) -> Pictures:
        """The images, decoded by the preprocessing that they were screened with."""
        return Pictures(self.images, preprocessing, max_pixels=max_pixels, cache=self.cache)

    def require_training_images(self) -> None:
        """Nothing, where every class has an image to train on.

        Raises:
            JobFailedError: Names the first class that has none.
        """
        present = {self.images[position].label for position in self.train}
        missing = [name for label, name in enumerate(self.classes) if label not in present]
        if missing:
            also = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            broken = f"; {self.num_rejected} images of the archive are broken" if self.num_rejected else ""
            raise JobFailedError(
                "A class has no images to train on",
                detail=f"Class {missing[0]!r}{also} has no readable training image{broken}.",
                remedy="Add images of that class, or leave the class out, and upload the archive again.",
            )

    def counts(self) -> dict[str, int]:
        """Training images by class name."""
        found = Counter(self.classes[self.images[position].label] for position in self.train)
        return {name: found[name] for name in self.classes}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values; `from_dict` is the inverse."""
        return {
            "classes": list(self.classes),
            "images": [[str(image.path), image.label, image.name] for image in self.images],
            "train": list(self.train),
            "test": list(self.test),
            "rejected": [[each.name, each.reason] for each in self.rejected],
            "num_rejected": self.num_rejected,
            "cache": None if self.cache is None else str(self.cache),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "PreparedImages":
        """What `to_dict` gave."""
        return cls(
            classes=tuple(values["classes"]),
            images=tuple(ImageRef(Path(path), label, name) for path, label, name in values["images"]),
            train=tuple(values["train"]),
            test=tuple(values["test"]),
            rejected=tuple(Rejected(name, reason) for name, reason in values["rejected"]),
            num_rejected=values["num_rejected"],
            cache=None if values["cache"] is None else Path(values["cache"]),
        )


def prepare_images(
    archive: Path, into: Path, rules: ScreeningRules, *, on_images: OnImages
) -> PreparedImages:
    """The archive's images under the folder, ready to be learned from.

    Broken images are left out before the split is drawn. Called again after a kill, it goes on; called again
    after it finished, it reads what it left.

    Raises:
        InvalidArchiveError: The archive is hostile or broken.
        JobFailedError: No image can be read at all, or a class has too few for the shots.
        OSError: The disk is full.
    """
    found = _left_in(into)
    if found is not None:
        return found
    unpacked = unpack_archive(
        archive,
        into / "unpacked",
        rules.limits,
        on_progress=lambda done, total: on_images("unpack", done, total),
    )
    return prepare_index(unpacked, into, rules, on_images=on_images)


def prepare_index(
    index: ImageIndex, into: Path, rules: ScreeningRules, *, on_images: OnImages
) -> PreparedImages:
    """The images of an index, which lie on disk already, ready to be learned from.

    What `prepare_images` does after unpacking; as there, what it left in the folder is read again.

    Raises:
        JobFailedError: No image can be read at all, or a class has too few for the shots.
        OSError: The disk is full.
    """
    found = _left_in(into)
    if found is not None:
        return found
    into.mkdir(parents=True, exist_ok=True)
    prepared = _screened(index, into, rules, on_images=on_images)
    write_json(into / MARKER_NAME, prepared.to_dict())
    return prepared


def _left_in(folder: Path) -> PreparedImages | None:
    found = read_json(folder / MARKER_NAME)
    return None if found is None else PreparedImages.from_dict(found)


def _screened(index: ImageIndex, into: Path, rules: ScreeningRules, *, on_images: OnImages) -> PreparedImages:
    everything = (*index.train, *index.test)
    height, width = rules.preprocessing.size
    fits = len(everything) * height * width * 3 <= rules.cache_limit_bytes
    cache = into / "pixels.u8" if fits else None
    good, rejected = screen_images(
        everything,
        rules.preprocessing,
        max_pixels=rules.max_pixels,
        cache=cache,
        on_progress=lambda done, total: on_images("decode", done, total),
    )
    if not good:
        raise JobFailedError(
            "No image can be read",
            detail=f"All {len(rejected)} are broken, the first is {rejected[0].name!r}: {rejected[0].reason}",
            remedy="Upload an archive of JPEG, PNG or WEBP images that open elsewhere.",
        )
    drawn = _split_of(index, good, rules)
    position = {image.name: number for number, image in enumerate(good)}
    return PreparedImages(
        classes=index.classes,
        images=tuple(good),
        train=tuple(position[image.name] for image in drawn.train),
        test=tuple(position[image.name] for image in drawn.test),
        rejected=tuple(rejected[:NUM_REJECTED_SHOWN]),
        num_rejected=len(rejected),
        cache=cache,
    )


def _split_of(index: ImageIndex, good: list[ImageRef], rules: ScreeningRules) -> ImageIndex:
    names = {image.name for image in good}
    kept = ImageIndex(
        index.classes,
        tuple(image for image in index.train if image.name in names),
        tuple(image for image in index.test if image.name in names),
    )
    # The archive's own split stands, even where all its test images are broken.
    parted = kept if index.test else split(kept, test_fraction=rules.test_fraction, seed=rules.seed)
    return parted if rules.shots is None else _few_of(parted, rules.shots, seed=rules.seed)


def _few_of(index: ImageIndex, shots: int, *, seed: int) -> ImageIndex:
    """The index with `shots` training images a class.

    Raises:
        JobFailedError: Names the first class that has fewer.
    """
    present = Counter(image.label for image in index.train)
    for label, name in enumerate(index.classes):
        if present[label] < shots:
            raise JobFailedError(
                "A class has too few images for the shots",
                detail=f"Class {name!r} has {present[label]} training images, shots asks for {shots}.",
                remedy="Add images of that class, lower shots, or leave shots out to train on all images.",
            )
    return draw_shots(index, shots, seed=seed)
