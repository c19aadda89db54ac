"""The public layouts by name."""

from collections.abc import Callable
from pathlib import Path

from vismae.data.public.acdc import read_acdc
from vismae.data.public.amos import read_amos
from vismae.data.public.btcv import read_btcv, read_synapse
from vismae.data.public.busi import read_busi
from vismae.data.public.isic import read_isic
from vismae.data.public.medmnist import read_medmnist
from vismae.data.public.tasks import PublicTask

READERS: dict[str, Callable[[Path], list[PublicTask]]] = {
    "acdc": read_acdc,
    "amos22": read_amos,
    "btcv": read_btcv,
    "synapse": read_synapse,
    "busi": read_busi,
    "isic2018": read_isic,
    "medmnist": read_medmnist,
}
"""What reads each layout; ``nnunet`` has settings of its own (``read_nnunet``)."""
