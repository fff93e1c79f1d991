"""Run the command line: python -m kdfast."""

from kdfast.cli import main

main()
