"""Rows of the composed suites follow the papers' readings and corrections."""

import inspect
from importlib import import_module
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.papers import published
from pipeline.papers.published import PAPERS
from tests.support.composed import composed

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def istpa():
    return composed("istpa", "full")


def test_istpa_on_charades_from_kinetics_is_trained_and_tested_as_section_573_says(istpa):
    row = istpa.experiments["istpa-resnet50-charades"]
    recipe, protocol = istpa.recipes[row.recipe], istpa.protocols[row.protocol]
    assert (recipe.sampling, recipe.frames, recipe.stride) == ("dense", 8, 8)
    assert (recipe.lr, recipe.steps, recipe.epochs, recipe.loss) == (0.01, (40, 80), 100, "sigmoid")
    assert (protocol.clips, protocol.sampling, protocol.stride) == (10, "parts", 8)
    assert (protocol.frames, protocol.average) == (8, "sigmoid")
    kinetics = istpa.protocols[istpa.experiments["istpa-tsm-resnet50-kinetics400-8f"].protocol]
    assert (kinetics.sampling, kinetics.clips) == ("parts", 10)


def test_istpas_bninception_on_charades_has_no_pretraining_and_a_row_that_has(istpa):
    bare = [name for name in istpa.experiments if name.endswith("-bninception-charades")]
    assert {name for name in bare if istpa.experiments[name].weights} == {"istpa-imagenet-bninception-charades"}


@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51"])
def test_istpas_three_streams_have_the_frames_of_their_base(istpa, dataset):
    for name in ("istpa-irv2-{}-fused-3streams-3splits", "istpa-reinforced-irv2-{}-fused-3splits"):
        rows = [istpa.experiments[member] for member in istpa.fusions[name.format(dataset)].rows]
        assert {istpa.protocols[row.protocol].frames for row in rows} == {30}
    printed = {row.label: row for row in published.load("istpa", ROOT / "reports/papers").tables["T12"].rows}
    streams = next(row for label, row in printed.items() if label.startswith("Ours: RGB + flow"))
    assert streams.base is not None and printed[streams.base].under.frames == streams.under.frames == 30


def test_istpa_with_trajectories_has_its_base_row(istpa):
    idt = [name for name, fusion in istpa.fusions.items() if fusion.outside]
    bases = {row: table.base for table in istpa.tables.values() if table.base for row in table.rows}
    for name in idt:
        assert istpa.fusions[bases[name]].rows == istpa.fusions[name].rows


def test_istpas_second_readings_have_rows(istpa):
    rows = istpa.tables["istpa-readings-ablation"].rows
    assert [istpa.experiments[row].knobs for row in rows] == [
        {"positions": 8, "start": "normal"},
        {"positions": 8, "bare": "all"},
    ]


def test_istpas_weight_decay_is_tf_slims(istpa):
    """TF-slim's regularizer has a factor of 1/2, as the optimizer's decay; read literally the loss decays by 8e-5."""
    recipes = {name: recipe.weight_decay for name, recipe in istpa.recipes.items() if name.startswith("istpa-")}
    assert set(recipes.values()) == {4e-5} and len(recipes) > 10


def test_cifar100_is_padded_and_cropped(istpa):
    augment = istpa.recipes["istpa-cifar100"].augment
    assert (augment.crop, augment.pad, augment.flip) == ("padded", 4 / 32, True)


def test_eam_trains_as_haras_code_and_its_other_readings_have_rows():
    eam = composed("eam", "full")
    recipe = eam.recipes["eam"]
    assert (recipe.frozen_norms, recipe.dampening, recipe.head_std) == ("train", 0.0, None)
    assert (recipe.augment.crop, len(recipe.augment.scales)) == ("corners", 5)
    for name, field in (("frozen-norms", ("frozen_norms", "eval")), ("dampened", ("dampening", 0.9))):
        table = eam.tables[f"eam-{name}-ablation"]
        rows = [eam.experiments[row] for row in (table.base, *table.rows)]
        assert [row.attention for row in rows] == ["none", "eam"]
        assert {getattr(eam.recipes[row.recipe], field[0]) for row in rows} == {field[1]}


@pytest.mark.parametrize("suite", ["eam", "mobilenet"])
def test_frozen_stages_norms_are_in_train_mode_but_in_rows_of_the_other_reading(suite):
    params = composed(suite, "full")
    freezing = {name for name, recipe in params.recipes.items() if recipe.frozen}
    still = {name for name in freezing if params.recipes[name].frozen_norms == "eval"}
    assert still == {f"{suite}-frozen-norms"} < freezing
    table = next(table for name, table in params.tables.items() if "frozen-norms" in name)
    rows = [params.experiments[row] for row in (table.base, *table.rows)]
    assert {row.recipe for row in rows} == still
    assert [row.attention for row in rows] == {"eam": ["none", "eam"], "mobilenet": ["none", "eam", "action"]}[suite]


def test_every_recipe_states_its_precision():
    for path in (ROOT / "conf" / "recipe").glob("*.yaml"):
        assert YAML(typ="safe").load(path)["precision"] in ("fp32", "bf16"), path.name
    for suite in PAPERS:
        assert {recipe.precision for recipe in composed(suite, "full").recipes.values()} == {"fp32"}


def test_action_nets_ablations_are_of_one_initialization():
    action = composed("action_net", "full")
    for name, table in action.tables.items():
        rows = [action.experiments[row] for row in (*table.rows, table.base) if row]
        assert table.base is None or len({row.weights for row in rows}) == 1, name
    for dataset in ("sthv2", "jester"):
        base = action.experiments[action.tables[f"action-net-{dataset}-ablation"].base]
        assert "imagenet" in base.weights


def test_action_nets_stages_without_action_are_plain_and_shifted_ones_are_rows():
    action = composed("action_net", "full")
    stages = [["res2"], ["res2", "res3"], ["res2", "res3", "res4"]]
    for name, rest in (("stages", {}), ("rest", {"rest": "shifted"})):
        rows = [action.experiments[row].knobs for row in action.tables[f"action-net-{name}-ablation"].rows]
        assert rows == [{"stages": first, **rest} for first in stages]


def test_action_net_on_egogestures_training_and_validation_videos():
    action = composed("action_net", "full")
    row = action.experiments["action-trainval-resnet50-egogesture-8f"]
    assert action.recipes[row.recipe].train == ("train", "val")
    assert {recipe.train for name, recipe in action.recipes.items() if name != row.recipe} == {("train",)}


def test_action_nets_printed_numbers_are_marked_as_of_the_best_epoch():
    paper = published.load("action_net", ROOT / "reports" / "papers")
    for name in ("T1", "T2", "T3", "T4", "T5", "F4", "text_eta"):
        assert any("best on the videos reported" in note for note in paper.tables[name].notes), name


@pytest.mark.parametrize(
    ("paper", "words"),
    [
        ("action_net", ["floor(n / T)", "an epoch later", "table 4's stages without ACTION", "19,184"]),
        ("istpa", ["factor 1/2", "sum over the classes", "margins", "scores' weights and biases start", "MobileNetV2"]),
        ("istpa", ["size of X", "before their ReLU", "three streams", "deviation 0.001", "CIFAR-100", "iDT"]),
        ("eam", ["dampening", "batch norms of the stages that don't train", "corners", "crops are resized", "torch's"]),
        ("maagn", ["AGM's convolutions start", "mirrored clips", "100 pixels", "of channels", "Nesterov's"]),
        ("maagn", ["colors and decay", "clips on Kinetics-400, and their places", "ten crops", "deviation 0.01"]),
        ("st_manet", ["three maps are joined", "version of Diving48", "torch's default"]),
        ("st_manet", ["between which places", "each switch is a row"]),
    ],
)
def test_readings_are_listed_as_unstated(paper, words):
    listed = " ".join(f"{item.what} {item.reading}" for item in published.load(paper, ROOT / "reports/papers").unstated)
    assert [word for word in words if word not in listed] == []


def test_maagn_is_tested_on_kinetics_at_uniform_clips():
    maagn = composed("maagn", "full")
    kinetics = {row.protocol for row in maagn.experiments.values() if row.dataset == "kinetics400"}
    assert {maagn.protocols[name].sampling for name in kinetics} == {"uniform_clips"}


def test_maagns_other_readings_have_rows():
    maagn = composed("maagn", "full")
    axis = [maagn.experiments[row].knobs for row in maagn.tables["maagn-axis-ablation"].rows]
    assert {knobs["axis"] for knobs in axis} == {"C"} and len(axis) == 5
    readings = [maagn.experiments[row].knobs for row in maagn.tables["maagn-readings-ablation"].rows]
    assert readings == [{"start": "xavier"}, {"gated": "softmax"}]
    tpn = maagn.recipes[maagn.experiments["tpn-published-resnet50-sthv1-8f"].recipe]
    assert (tpn.augment.crop, tpn.augment.color, tpn.weight_decay) == ("resized", "space", 0.0005)


def test_figures_without_numbers_are_there():
    folder = ROOT / "reports" / "papers"
    assert published.load("maagn", folder).tables["F8"].classes.most == 10
    parts = [row.label for row in published.load("istpa", folder).tables["F5"].rows]
    assert [(label[:3], label[-13:]) for label in parts] == [("(B)", "(equation 17)"), ("(C)", "(equation 18)")]
    five = published.load("st_manet", folder).tables["F5"]
    suite = composed("st_manet", "full").experiments
    for row in five.rows:
        assert {suite[name].dataset for name in row.ours.values()} == {"ucf101", "hmdb51", "diving48"}


def test_diving48_of_st_manet_is_marked_as_another_version():
    tables = published.load("st_manet", ROOT / "reports/papers").tables
    assert any("version 1" in note and "version 2" in note for note in tables["T3"].notes)
    for name in ("T3", "F5"):
        assert tables[name].columns["diving48"].under.dataset == "diving48-v1"


def test_st_manets_other_readings_have_rows():
    manet = composed("st_manet", "full")
    rows = [manet.experiments[row] for row in manet.tables["st-manet-readings-ablation"].rows]
    assert [row.knobs for row in rows] == [
        {"joined": "sum"},
        {"once": True},
        {"convolved": True},
        {"normed": True},
        {"branch": "apart"},
        {"feed": False},
        {"scaled": False},
        {"second_softmax": True},
        {"dense_maps": True},
        {"dense_branch": False},
    ]
    assert manet.recipes[rows[0].recipe].clip_grad == 1.0


def test_suite_quick_hardly_ever_clips():
    """The norm limit is 20, as in ACTION-Net and TSM; at 1.0 nearly every step was rescaled."""
    recipes = [YAML(typ="safe").load(ROOT / name) for name in ("conf/recipe/quick.yaml", "conf/tier/recipe/mini.yaml")]
    recipes.append(YAML(typ="safe").load(ROOT / "params.yaml")["recipes"]["quick"])
    assert {recipe["clip_grad"] for recipe in recipes} == {20.0}


# Knobs that no row of a paper changes: the reduction that it prints, and what is its base network's, not the module's.
FIXED = {"action": {"reduction"}, "maagn": {"reduction", "flow", "aux", "shift"}}


@pytest.mark.parametrize(("suite", "system"), zip(PAPERS, ("maagn", "istpa", "eam", "action", "st_manet"), strict=True))
def test_every_knob_of_a_paper_has_a_row(suite, system):
    module = import_module(f"models.attention.{system}")
    given = inspect.signature(module.attach).parameters.values()
    knobs = {knob.name for knob in given if knob.default is not knob.empty}
    rows = composed(suite, "full").experiments.values()
    used = {name for row in rows if row.attention == system for name in row.knobs}
    assert knobs - used == FIXED.get(system, set())
