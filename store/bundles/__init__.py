"""Bundles: a model in one file, with its base or with its base's name, to move it between installations."""

from store.bundles.file import BundleFile
from store.bundles.importing import Imported, import_bundle
from store.bundles.layout import Index
from store.bundles.reader import BundleReader

__all__ = ["BundleFile", "BundleReader", "Imported", "Index", "import_bundle"]
