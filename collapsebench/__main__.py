"""``python -m collapsebench`` is the command ``collapsebench``."""

from collapsebench.cli.main import main

if __name__ == "__main__":
    main()
