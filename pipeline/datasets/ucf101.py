"""UCF101: 13,320 clips in 101 classes, three splits (Soomro et al. 2012)."""

from pathlib import Path

from pipeline.datasets import NoOptions, Options, Part, Row, Splits, Video, chosen, in_classes, lines, within
from pipeline.errors import UserError, alternatives

LICENCE = "the makers state none; the clips are from YouTube"
CITATION = (
    "Soomro, Zamir, Shah: UCF101: A dataset of 101 human actions classes from videos in the wild. CRCV-TR-12-01, 2012"
)
HOMEPAGE = "https://www.crcv.ucf.edu/data/UCF101.php"
FETCH = (
    "UCF101.rar and UCF101TrainTestSplits-RecognitionTask.zip from https://www.crcv.ucf.edu/data/UCF101/; "
    "no form to sign"
)
SIZE = 6_500_000_000  # rounded by the makers
LAYOUT = (
    "the content of UCF101.rar: UCF-101/<class>/v_<class>_g<group>_c<clip>.avi, 101 classes, 13320 clips. The lists "
    "are the content of UCF101TrainTestSplits-RecognitionTask.zip: trainlist01.txt to trainlist03.txt and "
    "testlist01.txt to testlist03.txt, next to UCF-101 (with or without their folder ucfTrainTestlist) or in the "
    "folder that `lists` names"
)
READS = ("*list??.txt", "ucfTrainTestlist/*list??.txt")
COUNTS = {1: {"train": 9537, "test": 3783}, 2: {"train": 9586, "test": 3734}, 3: {"train": 9624, "test": 3696}}
CLASSES = (
    *("ApplyEyeMakeup", "ApplyLipstick", "Archery", "BabyCrawling", "BalanceBeam", "BandMarching", "BaseballPitch"),
    *("Basketball", "BasketballDunk", "BenchPress", "Biking", "Billiards", "BlowDryHair", "BlowingCandles"),
    *("BodyWeightSquats", "Bowling", "BoxingPunchingBag", "BoxingSpeedBag", "BreastStroke", "BrushingTeeth"),
    *("CleanAndJerk", "CliffDiving", "CricketBowling", "CricketShot", "CuttingInKitchen", "Diving", "Drumming"),
    *("Fencing", "FieldHockeyPenalty", "FloorGymnastics", "FrisbeeCatch", "FrontCrawl", "GolfSwing", "Haircut"),
    *("Hammering", "HammerThrow", "HandstandPushups", "HandstandWalking", "HeadMassage", "HighJump", "HorseRace"),
    *("HorseRiding", "HulaHoop", "IceDancing", "JavelinThrow", "JugglingBalls", "JumpingJack", "JumpRope", "Kayaking"),
    *("Knitting", "LongJump", "Lunges", "MilitaryParade", "Mixing", "MoppingFloor", "Nunchucks", "ParallelBars"),
    *("PizzaTossing", "PlayingCello", "PlayingDaf", "PlayingDhol", "PlayingFlute", "PlayingGuitar", "PlayingPiano"),
    *("PlayingSitar", "PlayingTabla", "PlayingViolin", "PoleVault", "PommelHorse", "PullUps", "Punch", "PushUps"),
    *("Rafting", "RockClimbingIndoor", "RopeClimbing", "Rowing", "SalsaSpin", "ShavingBeard", "Shotput"),
    *("SkateBoarding", "Skiing", "Skijet", "SkyDiving", "SoccerJuggling", "SoccerPenalty", "StillRings"),
    *("SumoWrestling", "Surfing", "Swing", "TableTennisShot", "TaiChi", "TennisSwing", "ThrowDiscus"),
    *("TrampolineJumping", "Typing", "UnevenBars", "VolleyballSpiking", "WalkingWithDog", "WallPushups"),
    *("WritingOnBoard", "YoYo"),
)
PARTS: tuple[Part, ...] = ("train", "test")


def videos(folder: Path, options: Options) -> list[Video]:
    """List the clips present, id <class>/<file without suffix>."""
    chosen(NoOptions, options, "ucf101")
    return in_classes("ucf101", folder, CLASSES)


def splits(lists: Path, options: Options) -> Splits:
    """Read the official lists; UserError for a label of another class."""
    chosen(NoOptions, options, "ucf101")
    folder = within(lists, "ucfTrainTestlist")
    return Splits(CLASSES, {split: [row for part in PARTS for row in _rows(folder, part, split)] for split in COUNTS})


def _rows(lists: Path, part: Part, split: int) -> list[Row]:
    path = lists / f"{part}list{split:02d}.txt"
    rows = []
    for where, line in lines("ucf101", path, LAYOUT):
        file, *label = line.split()
        name, _, clip = file.partition("/")
        if not clip.endswith(".avi") or "/" in clip or len(label) > 1:
            raise UserError(f"{where}: expected `<class>/<file>.avi`, in training lists with a label, not {line!r}")
        if name not in CLASSES:
            raise UserError(f"{where}: {name!r} is no class of UCF101; {alternatives(name, CLASSES)}")
        index = CLASSES.index(name)
        if label and label[0] != str(index + 1):  # the lists count from 1
            raise UserError(f"{where}: the label {label[0]} is not that of {name}, which is {index + 1}")
        rows.append(Row(f"{name}/{clip.removesuffix('.avi')}", part, (index,)))
    return rows
