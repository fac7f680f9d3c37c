"""The generator networks of STAA-Net, and what trains, exports and runs them.

Import from the modules: ``runtime`` needs no torch, so that this file imports nothing.
"""
