"""`python -m orchestrator` is `phala-jobs`."""

from orchestrator.cli import main

if __name__ == "__main__":
    main()
