"""`python -m d4k` is `d4k`."""

from d4k.cli import main

main()
