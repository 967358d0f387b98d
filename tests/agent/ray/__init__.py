"""A package, so that what its tests share ends when the last of them has (scope="package")."""
