"""`python -m tollkeeper`."""

from tollkeeper.cli import main

if __name__ == "__main__":
    main()
