"""A look at the features: what it finds, when it is put off, and what it leaves alone."""

import csv
import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from models_on_disk import write_mae
from stores import classification_store
from vismae.core.preprocessing import Preprocessing
from vismae.data.store import Store
from vismae.inference.embedder import embed_slices, stored_slices
from vismae.inference.ensemble import load_ensemble
from vismae.models import SwinMAE, load_model
from vismae.models.backbone import SwinEncoder, config_for_size
from vismae.training.features import effective_rank
from vismae.training.metrics_log import MetricsLog, TimedLoader
from vismae.training.monitor import Monitor
from vismae.training.probes import labelled_halves
from vismae.training.step_losses import StepLosses
from vismae.training.time_share import TimeShare

CONTRACT = Preprocessing(image_size=(32, 32), in_channels=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return classification_store(tmp_path_factory.mktemp("monitor") / "store", patients=20, images=2)


@pytest.fixture
def encoder() -> SwinEncoder:
    torch.manual_seed(0)
    return SwinEncoder(config_for_size("nano", in_channels=1))


@pytest.fixture
def log(tmp_path: Path):
    made = MetricsLog(
        tmp_path,
        TimedLoader([]),  # pyright: ignore[reportArgumentType]
        total_steps=10,
        images_per_step=4,
        epoch_length=40,
        losses=StepLosses(every=1, total_steps=10),
        resume_step=0,
    )
    yield made
    made.close()


def written(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_look_writes_rank_and_probes_and_leaves_mode_and_random_numbers_alone(
    store: Store, encoder: SwinEncoder, log: MetricsLog, tmp_path: Path
):
    halves = labelled_halves(store, 1000)
    monitor = Monitor(encoder, store, CONTRACT, halves, TimeShare(1.0))
    encoder.train()
    states = torch.get_rng_state(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002
    monitor(7, log)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == repr(np.random.get_state())  # noqa: NPY002
    assert states[2] == random.getstate()
    assert encoder.training
    assert all(parameter.grad is None for parameter in encoder.parameters())
    (row,) = written(tmp_path)
    assert row["step"] == "7"
    assert 1.0 < float(row["effective_rank"]) < 40
    assert float(row["knn_balanced_accuracy"]) == 1.0
    assert float(row["linear_balanced_accuracy"]) == 1.0
    assert float(row["judged_images"]) == len(halves.judge_rows)
    assert 0 < float(row["monitor_time_share"]) <= 1


def test_an_encoder_that_collapsed_shows_as_rank_1_and_chance(
    store: Store, encoder: SwinEncoder, log: MetricsLog, tmp_path: Path
):
    with torch.no_grad():
        encoder.patch_embed.norm.weight.zero_()  # every patch of every image is the same token
        encoder.patch_embed.norm.bias.normal_()
    Monitor(encoder, store, CONTRACT, labelled_halves(store, 1000), TimeShare(1.0))(1, log)
    (row,) = written(tmp_path)
    assert float(row["effective_rank"]) == pytest.approx(1.0, abs=0.01)
    assert float(row["linear_balanced_accuracy"]) == 0.5


def test_without_labels_the_rank_alone_is_looked_at(
    store: Store, encoder: SwinEncoder, log: MetricsLog, tmp_path: Path
):
    Monitor(encoder, store, CONTRACT, np.arange(10), TimeShare(1.0))(1, log)
    (row,) = written(tmp_path)
    assert set(row) == {"step", "effective_rank", "monitor_time_share"}


def test_the_features_looked_at_are_those_of_embed(log: MetricsLog, tmp_path: Path):
    # Images so long that most of the canvas is padding.
    store = classification_store(tmp_path / "store", patients=12, size=(12, 48))
    model = write_mae(tmp_path / "model", preprocessing=CONTRACT)
    ensemble = load_ensemble([model], torch.device("cpu"))
    rows = np.arange(len(store))
    vectors = [
        vector for _, vector in embed_slices(ensemble, stored_slices(store, rows, CONTRACT), 5)
    ]
    network = load_model(model)
    assert isinstance(network, SwinMAE)
    Monitor(network.encoder, store, CONTRACT, rows, TimeShare(1.0))(1, log)
    expected = effective_rank(np.stack(vectors))
    assert float(written(tmp_path)[0]["effective_rank"]) == pytest.approx(expected, rel=1e-4)


def test_weights_that_are_not_finite_do_not_stop_a_look(
    store: Store, encoder: SwinEncoder, log: MetricsLog, tmp_path: Path
):
    with torch.no_grad():
        encoder.patch_embed.proj.weight[0, 0, 0, 0] = torch.nan
    Monitor(encoder, store, CONTRACT, labelled_halves(store, 1000), TimeShare(1.0))(1, log)
    assert written(tmp_path)[0]["effective_rank"] == "nan"


def test_a_look_that_takes_too_much_of_the_time_is_put_off_until_it_fits(
    store: Store,
    encoder: SwinEncoder,
    log: MetricsLog,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    hours = [0.0]

    class Late(TimeShare):
        """A share of a run that has gone on for some hours."""

        def fits(self, seconds: float) -> bool:
            return seconds <= self.most * 3600 * hours[0]

    monitor = Monitor(encoder, store, CONTRACT, np.arange(40), Late(0.03))
    with caplog.at_level(logging.INFO, logger="vismae"):
        for step in (1, 2, 3):
            monitor(step, log)
    assert written(tmp_path) == []
    assert caplog.text.count("put off") == 1
    hours[0] = 10.0
    monitor(4, log)
    assert [row["step"] for row in written(tmp_path)] == ["4"]
