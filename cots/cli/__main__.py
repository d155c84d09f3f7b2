"""`python -m cots.cli` is `cots`."""

from cots.cli import main

main()
