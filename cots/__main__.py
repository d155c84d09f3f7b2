"""`python -m cots` is `cots`."""

from cots.cli import main

if __name__ == "__main__":
    main()
