"""Rules of the house that no linter knows: sizes, names, words, and that the docs tell what the code has."""
