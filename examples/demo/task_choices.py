"""What the demo is made of: classes, folders, fonts, icon sets, and what is held out. No code."""

from bench.suites.packages import Package

ANIMAL_CLASSES = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")

FASHION_CLASSES = (
    "t-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle_boot",
)

# Class -> the folders of Open Clip Art that hold it. The corpus of the base leaves these folders out.
CLIP_ART_CLASSES: dict[str, tuple[str, ...]] = {
    "arrow": ("shapes/arrows",),
    "bird": ("animals/birds",),
    "body_part": ("people/bodypart",),
    "clothing": ("people/clothing",),
    "computer": ("computer/hardware",),
    "dessert": ("food/desserts",),
    "drink": ("food/beverages",),
    "flag": ("signs_and_symbols/flags",),
    "flower": ("plants/flowers",),
    "fruit": ("food/fruit",),
    "house": ("buildings/homes",),
    "insect": ("animals/bugs",),
    "mammal": ("animals/mammals",),
    "musical_instrument": ("recreation/music",),
    "playing_card": ("recreation/games/cards",),
    "road_sign": ("transportation/roadsigns",),
    "smiley": ("people/smilies",),
    "sport": ("recreation/sports",),
    "vehicle": ("transportation/vehicles",),
}

# Class -> the words that icon authors use for it.
ICON_CLASSES: dict[str, tuple[str, ...]] = {
    "anchor": ("anchor",),
    "bell": ("bell",),
    "bicycle": ("bicycle", "bike"),
    "book": ("book",),
    "bug": ("bug",),
    "cake": ("cake",),
    "calendar": ("calendar",),
    "camera": ("camera",),
    "car": ("car",),
    "clock": ("clock",),
    "cloud": ("cloud",),
    "crown": ("crown",),
    "eye": ("eye",),
    "fire": ("fire", "flame"),
    "fish": ("fish",),
    "flag": ("flag",),
    "gift": ("gift",),
    "globe": ("globe",),
    "headphones": ("headphones",),
    "heart": ("heart",),
    "hourglass": ("hourglass",),
    "house": ("home", "house"),
    "key": ("key",),
    "lock": ("lock",),
    "magnet": ("magnet",),
    "microphone": ("microphone",),
    "moon": ("moon",),
    "rocket": ("rocket",),
    "scissors": ("scissors",),
    "shield": ("shield",),
    "star": ("star",),
    "sun": ("sun",),
    "train": ("train",),
    "trophy": ("trophy",),
    "truck": ("truck",),
    "umbrella": ("umbrella",),
}
# The icon sets of the corpus, none of which feeds the icons task; no share-alike, non-commercial or GPL set.
EMOJI_SETS = (
    "noto",
    "noto-v1",
    "twemoji",
    "fluent-emoji-flat",
    "fluent-emoji",
    "fluent-emoji-high-contrast",
    "emojione",
    "streamline-emojis",
)
ICON_SETS = (
    "game-icons",
    "pinhead",
    "healthicons",
    "streamline-ultimate-color",
    "streamline-kameleon-color",
    "temaki",
    "maki",
    "flat-color-icons",
    "meteocons",
)
ICON_LICENCES = ("MIT", "Apache-2.0", "ISC", "CC0-1.0", "Unlicense")
# Emoji, logos and flags are other subjects; sets in colour would give the set away.
ICON_FAMILIES_LEFT_OUT = ("Emoji", "Logos", "Programming", "Flags")
# Every fourth icon set, in the order of their names, gives test images only.
HELD_OUT_EVERY = 4


def _font(name: str, version: str, sha256: str) -> Package:
    file = f"{name}_{version.replace(':', '%3a')}_all.deb"
    return Package("apt", name, version, file, sha256)


# Package -> the font files used, under usr/share/fonts/. Each font is under the OFL 1.1 or Apache 2.0.
TRAIN_FONTS: dict[Package, tuple[str, ...]] = {
    _font("fonts-lato", "2.0-2.1", "86f50af146a7df9eca4e69f0262e73e708908435ebfa833df797adfa08843bc5"): (
        "truetype/lato/Lato-Regular.ttf",
        "truetype/lato/Lato-Black.ttf",
        "truetype/lato/Lato-LightItalic.ttf",
    ),
    _font("fonts-open-sans", "1.11-2", "ed8c4258af6c23e5105fa18940544f060f3c9664fbe881f25130fe0c65bc1485"): (
        "truetype/open-sans/OpenSans-Regular.ttf",
        "truetype/open-sans/OpenSans-ExtraBold.ttf",
        "truetype/open-sans/OpenSans-CondLight.ttf",
    ),
    _font(
        "fonts-roboto-unhinted",
        "2:0~20170802-3",
        "f89cf7d8a589489daecf750031ec50456ab3e648d49ff544f0f08753268fbd91",
    ): (
        "truetype/roboto/unhinted/RobotoTTF/Roboto-Regular.ttf",
        "truetype/roboto/unhinted/RobotoTTF/Roboto-BoldItalic.ttf",
        "truetype/roboto/unhinted/RobotoCondensed-Regular.ttf",
    ),
    _font(
        "fonts-cantarell", "0.303.1-1", "8fdf5687d9e2ce70456664519025a6b48fbaaadbc5b1cfbf8b09f72c2dc5f09b"
    ): (
        "opentype/cantarell/Cantarell-Regular.otf",
        "opentype/cantarell/Cantarell-ExtraBold.otf",
    ),
    _font("fonts-comfortaa", "3.001-3", "33c65e81b201177a56e6528f7ea5fd6b19f2db0bb6f4f95346b9483691851929"): (
        "truetype/comfortaa/Comfortaa-Regular.ttf",
        "truetype/comfortaa/Comfortaa-Bold.ttf",
    ),
    _font(
        "fonts-quicksand", "0.2016-2.1", "1175e5c64f116887b37ec3c8faea1f411bdef356580bc22298c3c9da75fac120"
    ): ("truetype/quicksand/Quicksand-Medium.ttf",),
    _font(
        "fonts-inconsolata", "001.010-6", "bb5015c631cd47aa7d9d6e0ecd101f0e1234300f935e7719ea32ed9b640f0ac4"
    ): ("truetype/inconsolata/Inconsolata.otf",),
    _font(
        "fonts-crosextra-carlito",
        "20220224-1",
        "673689e3a887cd150ca5018c26e1a4162709add3a1bdc0a2527af6fd073980d7",
    ): ("truetype/crosextra/Carlito-Regular.ttf", "truetype/crosextra/Carlito-BoldItalic.ttf"),
    _font(
        "fonts-crosextra-caladea",
        "20200211-1",
        "dd51af7629df5a2f3799f889cdf63d5abdda32e94e5de59398f728d98604a240",
    ): ("truetype/crosextra/Caladea-Regular.ttf", "truetype/crosextra/Caladea-BoldItalic.ttf"),
    _font("fonts-dosis", "1.7-3", "5e830fdfeeec1e34fe0909c3374fd209351f3398bbf20bbb486f9e5069e075f3"): (
        "opentype/dosis/Dosis-Book.otf",
        "opentype/dosis/Dosis-ExtraBold.otf",
    ),
    _font(
        "fonts-courier-prime",
        "0+git20190115-3",
        "6f827dd190446abbf83972f01e3f0db2c980e73bd6fb85b56d9d9a8f1755149f",
    ): ("opentype/courier-prime/Courier Prime.otf", "opentype/courier-prime/Courier Prime Bold.otf"),
    _font("fonts-cabin", "1.5-3", "3a7a7d6057956273b1afa22534383896e2901bcb98439033d8e7852223365238"): (
        "opentype/cabin/Cabin-Medium.otf",
    ),
    _font("fonts-karla", "20201218-1", "0bbe3298aed346958c68407995b9084a440aad6263c384abe8547008be598e73"): (
        "truetype/karla/Karla-Regular.otf",
        "truetype/karla/Karla-ExtraBoldItalic.otf",
    ),
    _font("fonts-vollkorn", "4.105-2", "0c7039de3ede6c96727829635c5b10a536114029cbddf98e14716578d936307f"): (
        "truetype/vollkorn/Vollkorn-Regular.ttf",
        "truetype/vollkorn/Vollkorn-Black.ttf",
    ),
    _font(
        "fonts-oldstandard", "2.2really-4", "c8c240cf91654f9ae5357b123436612c05820259dd5569f1c090185cb2ec1fdd"
    ): (
        "truetype/fonts-oldstandard/OldStandard-Regular.ttf",
        "truetype/fonts-oldstandard/OldStandard-Italic.ttf",
    ),
    _font(
        "fonts-ebgaramond",
        "0.016+git20210310.42d4f9f2-1",
        "2780e32df19b909823425b3e21c2f2f2a1717bbdd96f33fc59a252a308903fa2",
    ): ("opentype/ebgaramond/EBGaramond12-Regular.otf",),
    _font(
        "fonts-averia-serif-gwf",
        "1.00-2.1",
        "bd85bd2fa5c8db8a5ffb994d6aa327b0df6247d0c490485bc0d80f3d0677a212",
    ): ("truetype/averia-gwf/AveriaSerifGWF-Regular.ttf",),
}
TEST_FONTS: dict[Package, tuple[str, ...]] = {
    _font(
        "fonts-roboto-slab",
        "1.100263+20170512-2",
        "bbc315d672de850a7c980bc2283e41b4f322fd5a2b2bb2d00f07c15983b950b1",
    ): ("opentype/roboto/slab/RobotoSlab-Regular.otf",),
    _font("fonts-jura", "5.103-3", "4fa907bfa547d7a24d554330d1be0a74a65c01f168ce9e175242b837be1f3510"): (
        "opentype/jura/Jura-Medium.otf",
    ),
    _font(
        "fonts-play",
        "1.002+20150307.1-0.1",
        "274f6e95f668f1fff3441056e968a4c947ac975b29000d9c513bd06bb7f7f9d4",
    ): ("truetype/play/Play-Bold.ttf",),
    _font(
        "fonts-league-spartan", "2.210-1", "4d1fc96447aa615855e8b7a0afc534c761446ef2ddc6a6259382ec99f1f8929e"
    ): ("opentype/league-spartan/LeagueSpartan-Bold.otf",),
    _font("fonts-oxygen", "4:5.4.3-4", "9f048938d1bb7f4ac8da0490773f0073dcc8a8a9e103d2b3aa3343796af8825b"): (
        "truetype/oxygen/Oxygen-Sans.ttf",
    ),
    _font(
        "fonts-lobstertwo", "2.0-2.1", "cd24c217d07c4688e47d6a5bf8e8909638855f4278ba1468e100a589bd15665a"
    ): ("opentype/lobstertwo/LobsterTwo-Regular.otf",),
    _font(
        "fonts-averia-sans-gwf",
        "1.00-2.1",
        "432627305095cf97a6aafaa76a8b6562471586246f339be9d67abc4a9970db35",
    ): ("truetype/averia-gwf/AveriaSansGWF-Italic.ttf",),
}
