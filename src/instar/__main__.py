"""``python -m instar`` is the program ``instar``."""

from instar.cli import main

if __name__ == "__main__":
    main()
