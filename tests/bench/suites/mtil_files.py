"""The eleven data sets of MTIL in miniature: the real layouts, a few tiny pictures a class."""

import gzip
import io
import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from bench.suites.mtil.facts import CALTECH_CLASSES, EUROSAT_CLASSES, NUM_CLASSES


def jpeg(seed: int = 0, *, side: int = 4) -> bytes:
    """A tiny picture."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (seed % 256, 40, 200)).save(file, "JPEG")
    return file.getvalue()


def write(path: Path, content: bytes | str) -> None:
    """The file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def aircraft(data: Path) -> None:
    folder = data / "fgvc-aircraft-2013b" / "data"
    variants = [f"Model {number:03d}" for number in range(98)] + ["F-16A/B", "Boeing_717"]
    write(folder / "variants.txt", "".join(f"{name}\n" for name in variants))
    for start, split in ((0, "train"), (1000, "test")):
        rows = [(f"{start + number:07d}", name) for number, name in enumerate(variants)]
        write(
            folder / f"images_variant_{split}.txt", "".join(f"{picture} {name}\n" for picture, name in rows)
        )
        for picture, _ in rows:
            write(folder / "images" / f"{picture}.jpg", jpeg())


def caltech101(data: Path) -> None:
    folder = data / "caltech101" / "101_ObjectCategories"
    for category in (*CALTECH_CLASSES, "BACKGROUND_Google"):
        for number in range(1, 7):
            write(folder / category / f"image_{number:04d}.jpg", jpeg(number))


def dtd(data: Path) -> None:
    folder = data / "dtd" / "dtd"
    textures = ["polka-dotted", *(f"texture_{number:02d}" for number in range(46))]
    for number, split in enumerate(("train", "val", "test")):
        lines = [f"{texture}/{texture}_{number:04d}.jpg" for texture in textures]
        write(folder / "labels" / f"{split}1.txt", "".join(f"{line}\n" for line in lines))
        for line in lines:
            write(folder / "images" / line, jpeg())


def eurosat(data: Path) -> None:
    for kind in EUROSAT_CLASSES:
        for number in range(1, 11):
            write(data / "eurosat" / "2750" / kind / f"{kind}_{number}.jpg", jpeg(number))


def flowers(data: Path) -> None:
    folder = data / "flowers-102"
    labels = np.repeat(np.arange(1, 103, dtype=np.uint8), 3)
    for number in range(1, len(labels) + 1):
        write(folder / "jpg" / f"image_{number:05d}.jpg", jpeg())
    numbers = np.arange(1, len(labels) + 1, dtype=np.uint16)
    savemat(folder / "imagelabels.mat", {"labels": labels[None]})
    splits = {"trnid": numbers[None, 0::3], "valid": numbers[None, 1::3], "tstid": numbers[None, 2::3]}
    savemat(folder / "setid.mat", splits)


def food(data: Path) -> None:
    folder = data / "food-101"
    dishes = ["french_fries", *(f"dish_{number:03d}" for number in range(100))]
    for start, split in ((0, "train"), (100, "test")):
        lists = {dish: [f"{dish}/{start + number}" for number in range(2)] for dish in dishes}
        write(folder / "meta" / f"{split}.json", json.dumps(lists))
        for picture in (each for pictures in lists.values() for each in pictures):
            write(folder / "images" / f"{picture}.jpg", jpeg())


def idx(array: np.ndarray) -> bytes:
    """The array in the format of MNIST's files."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist(data: Path, *, packed: bool = False) -> None:
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 10)):
        arrays = {
            "images-idx3-ubyte": rng.integers(0, 256, (count, 28, 28), dtype=np.uint8),
            "labels-idx1-ubyte": np.arange(count, dtype=np.uint8) % 10,
        }
        for what, array in arrays.items():
            path = data / "MNIST" / "raw" / f"{prefix}-{what}"
            if packed:
                write(path.with_name(f"{path.name}.gz"), gzip.compress(idx(array)))
            else:
                write(path, idx(array))


def oxford_pet(data: Path) -> None:
    folder = data / "oxford-iiit-pet"
    breeds = ["Abyssinian", "american_bulldog", *(f"breed_number{number:02d}" for number in range(35))]
    for start, split in ((1, "trainval"), (100, "test")):
        rows = [
            (f"{breed}_{start + number}", label)
            for label, breed in enumerate(breeds, 1)
            for number in range(2)
        ]
        write(
            folder / "annotations" / f"{split}.txt",
            "".join(f"{name} {label} 1 1\n" for name, label in rows),
        )
        for name, _ in rows:
            write(folder / "images" / f"{name}.jpg", jpeg())


def stanford_cars(data: Path) -> None:
    folder = data / "stanford_cars"
    count = NUM_CLASSES["stanford_cars"]
    names = np.array([f"Maker Model {number} Sedan 2012" for number in range(count)], dtype=object)
    rows = np.zeros((1, count), dtype=[("bbox_x1", "O"), ("class", "O"), ("fname", "O")])
    for number in range(count):
        rows[0, number] = (1, number + 1, f"{number + 1:05d}.jpg")
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names[None]})
    savemat(folder / "devkit" / "cars_train_annos.mat", {"annotations": rows})
    savemat(folder / "cars_test_annos_withlabels.mat", {"annotations": rows})
    for part in ("cars_train", "cars_test"):
        for number in range(count):
            write(folder / part / f"{number + 1:05d}.jpg", jpeg())


def sun397(data: Path) -> None:
    folder = data / "SUN397"
    scenes = ["/a/abbey", "/a/apartment_building/outdoor", *(f"/s/scene_{n:03d}" for n in range(395))]
    write(folder / "ClassName.txt", "".join(f"{scene}\n" for scene in scenes))
    for scene in scenes:
        for number in range(6):
            write(folder / scene[1:] / f"sun_{number:08d}.jpg", jpeg(number))


# ------------------------------------------------------------------------------------------ CIFAR pickles


def py2_string(text: bytes) -> bytes:
    """The opcodes of a byte string as Python 2 pickled it."""
    is_short = len(text) < 256
    return (b"U" + bytes([len(text)]) if is_short else b"T" + struct.pack("<i", len(text))) + text


def py2_list(items: list[int] | list[bytes]) -> bytes:
    """The opcodes of a list as Python 2 pickled it: in batches of a thousand."""
    encoded = [py2_string(item) if isinstance(item, bytes) else b"K" + bytes([item]) for item in items]
    batches = [encoded[start : start + 1000] for start in range(0, len(encoded), 1000)]
    return b"]q\x01" + b"".join(b"(" + b"".join(batch) + b"e" for batch in batches)


def py2_array(array: np.ndarray) -> bytes:
    """The opcodes of a matrix of bytes as numpy under Python 2 pickled it."""
    column_major = not array.flags.c_contiguous
    content = array.tobytes(order="F" if column_major else "C")
    rows, columns = (b"J" + struct.pack("<i", side) for side in array.shape)
    made = b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87Rq\x04"
    kind = b"cnumpy\ndtype\nq\x05U\x02u1K\x00K\x01\x87Rq\x06"
    kind += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    flag = b"\x88" if column_major else b"\x89"
    return made + b"(K\x01" + rows + columns + b"\x86" + kind + flag + py2_string(content) + b"tb"


def py2_dict(values: dict[bytes, bytes]) -> bytes:
    """A whole pickle of a dict whose values are opcodes already."""
    items = b"".join(py2_string(name) + value for name, value in values.items())
    return b"\x80\x02}q\x00(" + items + b"u."


def cifar_pictures(count: int) -> np.ndarray:
    """[N, 3072] of random bytes: red, green and blue planes of 32 x 32."""
    return np.random.default_rng(count).integers(0, 256, (count, 3072), dtype=np.uint8)


def cifar100(data: Path, *, column_major: bool = False) -> None:
    folder = data / "cifar-100-python"
    fine = [b"maple_tree", *(f"thing{number}".encode() for number in range(99))]
    meta = {b"fine_label_names": py2_list(fine), b"coarse_label_names": py2_list([b"trees", b"people"])}
    write(folder / "meta", py2_dict(meta))
    for split, count in (("train", 1200), ("test", 100)):
        pictures = cifar_pictures(count)
        batch = {
            b"filenames": py2_list([f"p{number}.png".encode() for number in range(count)]),
            b"batch_label": py2_string(b"training batch 1 of 1"),
            b"fine_labels": py2_list([number % 100 for number in range(count)]),
            b"coarse_labels": py2_list([7] * count),
            b"data": py2_array(np.asfortranarray(pictures) if column_major else pictures),
        }
        write(folder / split, py2_dict(batch))


WRITERS = {
    writer.__name__: writer
    for writer in (
        aircraft,
        caltech101,
        cifar100,
        dtd,
        eurosat,
        flowers,
        food,
        mnist,
        oxford_pet,
        stanford_cars,
        sun397,
    )
}
