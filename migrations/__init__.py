"""The schema of the catalog, step by step; run by `catalog.database.upgrade` and `condu migrate`."""
