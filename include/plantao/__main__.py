"""`python -m plantao` is the command `plantao`."""

from plantao.cli import entry

if __name__ == "__main__":
    entry()
