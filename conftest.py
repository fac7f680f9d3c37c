"""Modules that cannot be imported without an extra are not searched for examples where it is absent."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("gradio") else ["src/staanet/apps/web/page.py"]
