"""The program ``vismae``; also ``python -m vismae``, which torchrun can start.

As in ``torchrun --nproc-per-node 2 -m vismae pretrain ...``.
"""

import sys

from vismae.core.host_memory import start_with_whole_blocks

# Taking in an archive makes small objects by the million, and was up to 5 % slower so.
_TRAIN = {"pretrain", "finetune", "study", "demo"}


def main() -> None:
    """Run the command line, in a process whose memory serves training well if it trains."""
    if not _TRAIN.isdisjoint(sys.argv[1:2]):
        start_with_whole_blocks()
    # Not above: half a second that the process would lose when it starts anew.
    from vismae.cli import main as run

    run()


if __name__ == "__main__":
    main()
