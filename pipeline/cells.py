"""A cell: one training run of a row, for one split and one seed, and the files it reads."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet

import models
from models.named import named as plugin
from models.video import VideoNet, build
from pipeline.errors import UserError
from pipeline.params import named
from pipeline.schema import Cluster, Experiment, Params, Protocol, Recipe
from pipeline.storage import Place, place


@dataclass(frozen=True)
class Cell:
    """What one training run and its evaluation need to know; `data` is the project's data/ folder."""

    row: str
    experiment: Experiment
    recipe: Recipe
    protocol: Protocol
    split: int
    seed: int
    data: Path
    copy: str | None = None  # a list of files in the store, for nodes that don't see `data`; see pipeline/copies.py

    @property
    def name(self) -> str:
        return f"split{self.split}-seed{self.seed}"

    @property
    def weights(self) -> Path:
        """The trained state dict, an output of the train stage."""
        return self.data / "runs" / self.row / f"{self.name}.pt"

    @property
    def log(self) -> Path:
        """A JSON line an epoch and a window of steps, an output of the train stage."""
        return self.data / "logs" / self.row / f"{self.name}.jsonl"

    def state(self, cluster: Cluster) -> Place:
        """The folder of its training state, which outlives a crash."""
        return place(cluster.storage) / self.row / self.name

    def running_log(self, cluster: Cluster) -> Place:
        """The log as it grows while the cell trains."""
        return self.state(cluster) / "log.jsonl"

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


def cells(params: Params, row: str, data: Path) -> list[Cell]:
    """All cells of a row, splits before seeds.

    Raises UserError for an unknown row and for a split that the data set hasn't.
    """
    experiment = named(params, row)
    made = [
        Cell(
            row, experiment, params.recipes[experiment.recipe], params.protocols[experiment.protocol], split, seed, data
        )
        for split in experiment.splits
        for seed in experiment.seeds
    ]
    for cell in made:
        if not cell.split_table.exists():
            there = sorted(path.stem for path in cell.split_table.parent.glob("split-*.parquet"))
            raise UserError(
                f"experiments.{row}: {experiment.dataset} has no split {cell.split}; "
                f"splits there: {', '.join(name.removeprefix('split-') for name in there) or 'none'}"
            )
    return made


def part(cell: Cell, name: str) -> list[tuple[str, list[int]]]:
    """(video, labels) of the split's part "train", "val" or "test", in the table's order."""
    table = pyarrow.parquet.read_table(cell.split_table, filters=[("part", "=", name)])
    return list(zip(table["video"].to_pylist(), table["labels"].to_pylist(), strict=True))


def classes(cell: Cell) -> list[str]:
    """Class names in the data set's official order; a label is an index into them."""
    return json.loads((cell.split_table.parent / "classes.json").read_text(encoding="utf-8"))


def mirrored(cell: Cell) -> list[int]:
    """For each class that of its mirror image, -1 where there is none."""
    return json.loads((cell.split_table.parent / "mirrored.json").read_text(encoding="utf-8"))


def training_fingerprint(cell: Cell) -> str:
    """Changes when anything changes that the trained weights depend on: settings, data, or loaded code.

    Training state is resumed only under the fingerprint it was made with.
    """
    others = ("protocol", "splits", "seeds")  # of the row, but not of how this cell trains
    experiment = {key: value for key, value in asdict(cell.experiment).items() if key not in others}
    settings = {"experiment": experiment, "recipe": asdict(cell.recipe), "cell": cell.name}
    labels = [cell.split_table, *([cell.split_table.with_name("mirrored.json")] if cell.recipe.augment.flip else [])]
    return _digest(settings, [*labels, cell.frames / "index.arrow"], cell.experiment)


def data_fingerprint(cell: Cell) -> str:
    """Of the frames and the split."""
    return _digest({}, [cell.split_table, cell.frames / "index.arrow"])


def evaluation_fingerprint(cell: Cell) -> str:
    """As training_fingerprint, for the predictions made from the trained weights."""
    files = [cell.weights, cell.split_table, cell.frames / "index.arrow", cell.split_table.with_name("mirrored.json")]
    return _digest({"protocol": asdict(cell.protocol)}, files, cell.experiment)


def net(cell: Cell, weights: Path | None = None) -> VideoNet:
    """The cell's net, before training; `weights` initialise its backbone.

    Raises UserError for a backbone, variant, attention or knob that is not there and for weights that don't fit.
    """
    experiment = cell.experiment
    try:
        return build(
            experiment.backbone,
            experiment.variant,
            experiment.attention,
            frames=cell.recipe.frames,
            classes=len(classes(cell)),
            dropout=cell.recipe.dropout,
            knobs=experiment.knobs,
            weights=weights,
            planes=cell.recipe.planes,
            head_std=cell.recipe.head_std,
        )
    except ValueError as error:
        raise UserError(f"experiments.{cell.row}: {error}") from None


def _digest(settings: dict, files: list[Path], code: Experiment | None = None) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    if code:
        # By name, not by what this process has loaded: another row's plug-ins may be there too, and know no others.
        own = [plugin("backbone", code.backbone), plugin("attention", code.attention)]
        package = Path(models.__file__).parent
        for path in [*sorted(package.glob("*.py")), *(Path(str(module.__file__)) for module in own)]:
            digest.update(path.read_bytes())
    return digest.hexdigest()
