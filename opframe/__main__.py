"""`python -m opframe`, and what torchrun starts."""

from opframe.cli.main import main

if __name__ == "__main__":
    main()
