"""`python -m fanfold`, which `torchrun -m fanfold` needs."""

from fanfold.cli.main import main

if __name__ == "__main__":
    main()
