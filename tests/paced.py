"""``vismae`` whose steps of pre-training take a tenth of a second at least.

A test can then count on a run being in its middle, however fast the machine is.
"""

import time
from typing import Any

from vismae.cli import main
from vismae.training.modules import PretrainModule

STEP_SECONDS = 0.1

if __name__ == "__main__":
    step_of = PretrainModule.training_step

    def training_step(self: PretrainModule, *args: Any) -> Any:
        time.sleep(STEP_SECONDS)
        return step_of(self, *args)

    PretrainModule.training_step = training_step
    main()
