"""Unknown names and knobs."""

import pytest
from torch import nn

from models import video
from models.backbone import Backbone
from models.registry import known, named

RIGHT = {"backbone": "resnet", "variant": "tiny", "attention": "none", "frames": 4, "classes": 5}


def test_a_file_is_its_own_registration():
    assert {"none", "tsm", "se", "action"} <= set(known("attention"))
    assert named("backbone", "resnet").__name__ == "models.backbones.resnet"


@pytest.mark.parametrize(
    "wrong,message",
    [
        ({"backbone": "resnets"}, "no backbone 'resnets'; did you mean 'resnet'\\? known: .*resnet"),
        ({"variant": "52"}, "no variant of backbone 'resnet' '52'; .*known: 18, 50, 101, tiny"),
        ({"attention": "tsmm"}, "no attention 'tsmm'; did you mean 'tsm'\\? known: .*action.*none.*se.*tsm"),
        ({"attention": "../none"}, "no attention '../none'; .*known: "),
        ({"knobs": {"fold": 8}}, "no knob of attention 'none' 'fold'; known: none"),
        ({"attention": "tsm", "knobs": {"folds": 8}}, "'folds'; did you mean 'fold'\\? known: fold"),
        ({"attention": "tsm", "knobs": {"fold": "8"}}, "attention 'tsm': knob fold is '8'; it must be of type int"),
        ({"attention": "tsm", "knobs": {"fold": 1}}, "attention 'tsm': fold is 1; it must be 2 or more"),
        ({"attention": "tsm", "knobs": {"frames": 8}}, "no knob of attention 'tsm' 'frames'"),
        ({"attention": "se", "knobs": {"reduction": 0}}, "attention 'se': reduction is 0"),
        (
            {"attention": "se", "knobs": {"placement": "stages"}},
            "attention 'se': placement is 'stages'; known: block, stage",
        ),
        ({"attention": "eca", "knobs": {"k": 4}}, "attention 'eca': k is 4; it must be an odd number, 1 or more"),
        ({"attention": "cbam", "knobs": {"reduction": 0}}, "attention 'cbam': reduction is 0"),
        ({"attention": "tsm", "knobs": {"fold": True}}, "attention 'tsm': knob fold is True; it must be of type int"),
        ({"attention": "istpa", "knobs": {"interaction": "1"}}, "knob interaction is '1'; it must be of type float"),
        ({"attention": "cbam", "knobs": {"spatial": "no"}}, "knob spatial is 'no'; it must be of type bool"),
        ({"attention": "eam", "knobs": {"k": -1}}, "attention 'eam': k is -1; it must be an odd number, 1 or more"),
        ({"attention": "eam", "knobs": {"mode": "SS"}}, "attention 'eam': mode is 'SS'; known: S, T, S//T, TS, ST"),
        ({"attention": "eam", "knobs": {"stages": []}}, "stages \\[\\] must be some of res2, res3, res4, res5"),
        (
            {"backbone": "resnet3d", "variant": "52"},
            "backbone 'resnet3d' '52'; known: 50, 101, tiny",
        ),
        ({"backbone": "resnext3d", "variant": "50"}, "backbone 'resnext3d' '50'; known: 101, tiny"),
        ({"backbone": "slowonly", "variant": "18"}, "variant of backbone 'slowonly' '18'; .*known: 50, 101, tiny"),
        ({"attention": "action", "knobs": {"reduction": -1}}, "attention 'action': reduction is -1"),
        ({"attention": "action", "knobs": {"paths": "ste"}}, "knob paths is 'ste'; it must be of type Sequence"),
        ({"attention": "action", "knobs": {"paths": []}}, "paths \\[\\] must be some of ste, ce, me"),
        ({"attention": "action", "knobs": {"paths": ["ste", "se"]}}, "paths .* must be some of ste, ce, me"),
        ({"attention": "action", "knobs": {"stages": ["stem"]}}, "stages .* must be some of res2, res3, res4, res5"),
    ],
)
def test_a_missing_name_is_named_with_the_known(wrong, message):
    with pytest.raises(ValueError, match=message):
        video.build(**{**RIGHT, **wrong})


def test_an_unknown_kind_of_model():
    with pytest.raises(ValueError, match="did you mean 'backbone'\\? known: attention, backbone"):
        named("backbones", "resnet")


@pytest.mark.parametrize("attention", ["tsm", "action"])
def test_a_volume_backbone_is_refused_by_what_works_on_frames(attention):
    volume = Backbone()
    volume.layout = "volume"
    with pytest.raises(
        ValueError, match=f"'{attention}' needs a backbone that takes frames, not one of layout 'volume'"
    ):
        named("attention", attention).attach(volume, 4)
    assert named("attention", "none").attach(volume, 4) is volume


def test_knobs_reach_the_modules():
    net = video.build(
        **{**RIGHT, "attention": "action", "knobs": {"paths": ["me"], "stages": ["res3"], "reduction": 4}}
    )
    filled = {name: block.entry for name, block in net.backbone.blocks() if not isinstance(block.entry, nn.Identity)}
    assert list(filled) == ["layer2.0"]
    assert list(filled["layer2.0"].paths) == ["me"]
    assert filled["layer2.0"].paths["me"].squeeze.out_channels == 16 // 4


def test_a_whole_number_will_do_where_a_fraction_may_stand():
    net = video.build("resnet", "tiny", "istpa", frames=4, classes=5, knobs={"interaction": 0, "attention": 1})
    assert net.backbone.neck.weights == {"interaction": 0, "attention": 1}
