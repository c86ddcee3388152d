"""`python -m cqt2img` is `cqt2img`."""

from cqt2img.cli.main import main

if __name__ == "__main__":
    main()
