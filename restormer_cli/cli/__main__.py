"""``python -m restormer_cli.cli``, where the command is not on the path."""

from restormer_cli.cli.main import main

if __name__ == "__main__":
    main()
