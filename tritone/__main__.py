"""The `tritone` command; `python -m tritone` is the same."""


def main() -> None:
    """Run the command line."""
    from .engine.cli.main import app

    app()


if __name__ == "__main__":
    main()
