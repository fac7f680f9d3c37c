"""Results of a run: adversarial sets, transfer matrices, and tables.

The package loads nothing by itself, so that a table can be printed where a library is broken.
"""
