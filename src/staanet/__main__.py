"""``python -m staanet`` is the command line."""

from staanet.cli import entry

if __name__ == "__main__":
    entry()
