"""
Builds the contract into the bundle that ships with the Python package.

Only the standard library is used, so `make contract` needs Python and the tools of the recipe and
nothing else. The bundle on disk is written by the canonical recipe alone (`recipe.Canonical`).
"""
