"""What leaves a run: adversarial sets, transfer matrices, and tables of results.

The package loads nothing by itself, so that a table can be printed where a library is broken.
"""
