"""``python -m vismae``, which torchrun can start: ``torchrun --nproc-per-node 2 -m vismae ...``."""

from vismae.cli import main

if __name__ == "__main__":
    main()
