"""What holds for files as such: no machine's paths in them, packages are packages, CI runs make."""

import re

from tests.house.sources import ROOT, text_files

# A path into somebody's home or an index of somebody's network works on one machine only.
MACHINE_PATHS = re.compile(
    r"(?<![\w.~/-])/(?:home|root|Users|mnt|opt|etc/xdg)/\w|--(?:extra-)?index-url|--find-links|file:///(?!folder|absolute|etc/passwd|\.\.\.)"
)
THIS_CHECKOUT = re.compile(rf"(?<!\w){re.escape(str(ROOT))}\b")


def test_no_file_names_a_path_of_one_machine():
    found = [
        f"{path}:{number}: {line.strip()[:80]}"
        for path, text in text_files()
        if path != "tests/house/test_files.py"
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE_PATHS.search(line) or THIS_CHECKOUT.search(line)
    ]

    assert not found


def test_every_folder_of_tests_is_a_package():
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}

    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]


def test_ci_runs_the_two_make_targets_and_nothing_else():
    commands = [
        line
        for line in (ROOT / ".ci/run").read_text().splitlines()
        if line and not line.startswith(("#", "set ", "cd "))
    ]

    assert commands == ["make check", "make test"]
