"""``python -m muxado`` is the `muxado` command."""

from .cli import main

if __name__ == "__main__":
    main()
