"""Entry point of the `tritone` command and of `python -m tritone`."""


def main() -> None:
    """Run the command-line interface."""
    from .engine.cli.main import app

    app()


if __name__ == "__main__":
    main()
