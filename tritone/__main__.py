"""The `tritone` command; `python -m tritone` is the same."""


def main() -> None:
    from .engine.cli import app

    app()


if __name__ == "__main__":
    main()
