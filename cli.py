"""Run kdfast from a checkout: python cli.py run exp1. The commands are in kdfast/cli/."""

from kdfast.cli import main

if __name__ == '__main__':
    main()
