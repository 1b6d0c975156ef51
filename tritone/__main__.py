"""Entry point of the `tritone` command and of `python -m tritone`."""


def main() -> None:
    """Run the command-line interface."""
    try:
        from .engine.cli.main import app
        from .engine.cli.terminal import run_process

        run_process(app)
    except KeyboardInterrupt:  # before the command has begun
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
