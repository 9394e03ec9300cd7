"""`python -m tfi2i.adapt`."""

from tfi2i.commands.adapt import run

if __name__ == "__main__":
    run()
