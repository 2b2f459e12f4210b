"""A run: the training of a row on one split with one seed, and its files."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet
import torch

from models.video import VideoNet, build, load_weights
from pipeline.config.schema import Experiment, Protocol, Recipe
from pipeline.errors import UserError
from pipeline.storage.atomic import write


@dataclass(frozen=True)
class Run:
    """Facts for a training and its evaluation; `data` is the project's data/ folder."""

    row: str
    experiment: Experiment
    recipe: Recipe
    protocol: Protocol
    split: int
    seed: int
    data: Path
    copy: str | None = None  # a list of files in the store, for nodes that don't see `data` (train/node_cache.py)

    @property
    def name(self) -> str:
        return f"split{self.split}-seed{self.seed}"

    @property
    def weights(self) -> Path:
        """The trained state dict, an output of the train stage."""
        return self.data / "runs" / self.row / f"{self.name}.pt"

    @property
    def curve(self) -> Path:
        """The curve, an output: a JSON line for each window of steps and each epoch."""
        return self.data / "runs" / self.row / f"{self.name}.jsonl"

    @property
    def timings(self) -> Path:
        """Varying values of the curve's lines, no output: seconds, clips/s, memory."""
        return self.data / "tracking" / self.row / f"{self.name}.timings.jsonl"

    @property
    def frames(self) -> Path:
        return self.data / "frames" / self.experiment.dataset

    @property
    def test_frames(self) -> int:
        """T of a clip under the protocol."""
        return self.protocol.frames or self.recipe.frames

    @property
    def split_table(self) -> Path:
        return self.data / "splits" / self.experiment.dataset / f"split-{self.split}.parquet"

    @property
    def class_list(self) -> Path:
        return self.split_table.with_name("classes.json")

    @property
    def mirror_list(self) -> Path:
        return self.split_table.with_name("mirrored.json")

    def part(self, name: str) -> list[tuple[str, list[int]]]:
        """List (video, labels) of part "train", "val" or "test", in the table's order."""
        table = pyarrow.parquet.read_table(self.split_table, filters=[("part", "=", name)])
        return list(zip(table["video"].to_pylist(), table["labels"].to_pylist(), strict=True))

    def classes(self) -> list[str]:
        """Return class names in the official order; a label is an index into them."""
        return json.loads(self.class_list.read_text(encoding="utf-8"))

    def mirrored(self) -> list[int]:
        """Return the class of each class's mirror image, -1 if there is none."""
        return json.loads(self.mirror_list.read_text(encoding="utf-8"))

    def convert(self, weights: Path) -> None:
        """Write a file of weights under our names, for a run without a recipe."""
        buffer = io.BytesIO()
        torch.save({name: value.contiguous() for name, value in self.net(weights).state_dict().items()}, buffer)
        write(self.weights, buffer.getvalue())

    def net(self, weights: Path | None = None, classes: int | None = None) -> VideoNet:
        """Build the run's net, before training.

        Args:
            weights: A file that initializes the backbone; without a recipe, the whole net.
            classes: Number of classes; by default that of the data set's splits.

        Raises:
            UserError: A backbone, variant, attention or knob is unknown, or weights don't fit.
        """
        experiment = self.experiment
        try:
            net = build(
                experiment.backbone,
                experiment.variant,
                experiment.attention,
                frames=self.recipe.frames,
                classes=classes or len(self.classes()),
                dropout=self.recipe.dropout,
                knobs=experiment.knobs,
                weights=weights if experiment.recipe else None,
                planes=self.recipe.planes,
                head_std=self.recipe.head_std,
            )
            if weights and not experiment.recipe:
                load_weights(net, weights, whole=True)
            return net
        except ValueError as error:
            raise UserError(f"experiments.{self.row}: {error}") from None
