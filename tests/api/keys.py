"""Keys for the tests of access, made as an operator makes them."""

from catalog import Catalog, Settings, upgrade
from catalog.keys import KeyLimits, NewKey, create_key
from catalog.peppers import make_pepper

WIDE = "0.0.0.0"  # noqa: S104 - listened on by nobody here; it makes the service ask for keys
ELSEWHERE = "http://condu.example"


def make_key(settings: Settings, role: str = "admin", **options) -> NewKey:
    """A new key of the installation."""
    upgrade(settings.catalog_url)
    catalog = Catalog(settings)
    try:
        limits = KeyLimits(**options.pop("limits", {}))
        with catalog.transaction() as session:
            return create_key(
                session,
                make_pepper(settings),
                name=options.pop("name", f"a-{role}"),
                role=role,
                limits=limits,
                created_by="the test",
                **options,
            )
    finally:
        catalog.close()


def bearer(key: NewKey | str) -> dict[str, str]:
    """The header that a client with the key sends."""
    return {"authorization": f"Bearer {key if isinstance(key, str) else key.secret}"}
