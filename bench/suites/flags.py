"""The flags of sixty countries, as different vendors draw them; two vendors' drawings are held out."""

from bench.suites.building import Split, TaskImage
from bench.suites.drawings import RGB, flatten, render_svg
from bench.suites.icon_sets import Icon, read_icon_sets
from bench.suites.packages import PackageCache

SIDE = 96
GROUND: RGB = (208, 208, 208)
"""Grey: on white, the white stripes of flags without a border would not be seen."""

TEMPLATES = ("the flag of {}.", "a drawing of the flag of {}.", "a picture of the flag of {}.")

# Icon set and how it names a flag, by the country's ISO 3166 code or its name.
TRAIN_SETS = (
    ("cif", "{code}"),
    ("circle-flags", "{code}"),
    ("emojione-v1", "flag-for-{name}"),
    ("flag", "{code}-1x1"),
    ("flag", "{code}-4x3"),
    ("flagpack", "{code}"),
    ("streamline-emojis", "{name}"),  # has 26 of them
    ("twemoji", "flag-{name}"),
)
TEST_SETS = (("emojione", "flag-for-{name}"), ("openmoji", "flag-{name}"))

# Where a set draws another flag under the country's code: the name to take instead, or none. Flagpack's `gb`
# is England's flag; what Circle Flags calls `ar` and `ie` stands for the languages Arabic and Interlingue.
EXCEPTIONS = {("flagpack", "gb"): "gb-ukm", ("circle-flags", "ar"): "", ("circle-flags", "ie"): ""}

# No two of these flags differ in their shades or proportions alone, as those of Indonesia and Monaco do.
COUNTRIES = {
    "ar": "Argentina",
    "au": "Australia",
    "at": "Austria",
    "bd": "Bangladesh",
    "be": "Belgium",
    "bt": "Bhutan",
    "br": "Brazil",
    "kh": "Cambodia",
    "ca": "Canada",
    "cl": "Chile",
    "cn": "China",
    "co": "Colombia",
    "cu": "Cuba",
    "dk": "Denmark",
    "eg": "Egypt",
    "fi": "Finland",
    "fr": "France",
    "de": "Germany",
    "gh": "Ghana",
    "gr": "Greece",
    "hu": "Hungary",
    "is": "Iceland",
    "in": "India",
    "id": "Indonesia",
    "ie": "Ireland",
    "il": "Israel",
    "it": "Italy",
    "jm": "Jamaica",
    "jp": "Japan",
    "ke": "Kenya",
    "lb": "Lebanon",
    "my": "Malaysia",
    "mx": "Mexico",
    "ma": "Morocco",
    "np": "Nepal",
    "nl": "the Netherlands",
    "nz": "New Zealand",
    "ng": "Nigeria",
    "no": "Norway",
    "pk": "Pakistan",
    "pe": "Peru",
    "ph": "the Philippines",
    "pl": "Poland",
    "pt": "Portugal",
    "ro": "Romania",
    "ru": "Russia",
    "sa": "Saudi Arabia",
    "sg": "Singapore",
    "za": "South Africa",
    "kr": "South Korea",
    "es": "Spain",
    "lk": "Sri Lanka",
    "se": "Sweden",
    "ch": "Switzerland",
    "th": "Thailand",
    "ua": "Ukraine",
    "gb": "the United Kingdom",
    "us": "the United States",
    "ve": "Venezuela",
    "vn": "Vietnam",
}


def flags(cache: PackageCache) -> list[TaskImage]:
    """Every country's flag of every set that has it."""
    icon_sets = read_icon_sets(cache, {prefix for prefix, _ in (*TRAIN_SETS, *TEST_SETS)})
    splits: tuple[tuple[Split, tuple[tuple[str, str], ...]], ...] = (
        ("train", TRAIN_SETS),
        ("test", TEST_SETS),
    )
    found: list[TaskImage] = []
    for split, sets in splits:
        for prefix, pattern in sets:
            icons = {icon.name: icon for icon in icon_sets[prefix]}
            for code, country in COUNTRIES.items():
                if icon := icons.get(_name_in(prefix, pattern, code)):
                    found.append(_drawn(icon, split, country))
    return found


def _name_in(prefix: str, pattern: str, code: str) -> str:
    name = COUNTRIES[code].removeprefix("the ").lower().replace(" ", "-")
    return pattern.format(code=EXCEPTIONS.get((prefix, code), code), name=name)


def _drawn(icon: Icon, split: Split, country: str) -> TaskImage:
    picture = flatten(render_svg(icon.svg, SIDE), GROUND)
    return TaskImage(split, country.replace(" ", "_"), picture, f"{icon.icon_set}/{icon.name}")
