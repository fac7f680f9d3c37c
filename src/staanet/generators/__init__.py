"""Generator networks of STAA-Net, with their losses, export and torch-free runtime.

Import from the modules: ``runtime`` needs no torch, so that this file imports nothing.
"""
