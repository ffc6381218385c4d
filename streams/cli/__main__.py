"""`python -m streams.cli` is `tidewire`."""

from streams.cli import main

main()
