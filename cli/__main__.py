"""`python -m cli`: the same as `payouts`."""

from cli import main

if __name__ == "__main__":
    main()
