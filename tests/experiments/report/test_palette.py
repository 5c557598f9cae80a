"""The looks can be told apart on either page, by the colour-blind and in grey, and never change."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from experiments.analysis.runs import PLACEMENT
from experiments.report.palette import (
    DARK_PAGE,
    LIGHT_PAGE,
    LOOKS,
    Look,
    categories,
    look_by_name,
    look_of,
    looks_of,
    scale_of,
)
from gpt.registry import PLACEMENTS

# Machado, Oliveira and Fernandes 2009, severity 1, of linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
# Ottosson 2020: linear RGB to cones, whose cube roots are turned into Oklab.
CONES = [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
]
OKLAB = [
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
]
STYLESHEET = Path("experiments/report/templates/style.css")
TOGETHER = ("pre_ln", "post_ln", "no_norm", "peri_ln", "deepnorm")
SHADES = ("light", "dark")
CLOSE = 0.055  # in Oklab, where black and white are 1 apart; 0.02 can just be seen


def linear(colour):
    channels = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def luminance(colour):
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def seen(colour, vision):
    rgb = np.clip(np.array(VISION[vision]) @ linear(colour), 0, 1)
    return np.array(OKLAB) @ np.cbrt(np.array(CONES) @ rgb)


def distance(one, other, shade):
    colours = [getattr(look, shade) for look in (one, other)]
    return min(np.linalg.norm(np.subtract(*(seen(c, v) for c in colours))) for v in VISION)


def lightness(colour):
    return 116 * np.cbrt(luminance(colour)) - 16  # L* of CIE 1976; of 0 to 100


def every_look():
    return [*LOOKS.values(), *categories(48), *scale_of(9), look_by_name("mine")]


def test_the_measures_agree_with_published_values():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert seen("#ff0000", "normal") == pytest.approx([0.628, 0.225, 0.126], abs=5e-4)


@pytest.mark.parametrize(("shade", "page"), [("light", LIGHT_PAGE), ("dark", DARK_PAGE)])
def test_each_colour_is_readable_as_text_on_its_page(shade, page):
    assert f"--paper: {page}" in STYLESHEET.read_text()
    assert min(contrast(getattr(look, shade), page) for look in every_look()) >= 4.5


@pytest.mark.parametrize("shade", SHADES)
def test_what_meets_most_often_differs_in_colour_alone(shade):
    for one, other in itertools.combinations([LOOKS[name] for name in TOGETHER], 2):
        assert distance(one, other, shade) >= 0.085
        assert abs(lightness(getattr(one, shade)) - lightness(getattr(other, shade))) >= 6


def test_no_two_placements_have_the_same_dash_and_mark():
    assert len({(look.dash, look.mark) for look in LOOKS.values()}) == len(LOOKS) == 21


@pytest.mark.parametrize("shade", SHADES)
def test_where_colours_are_close_both_dash_and_mark_differ(shade):
    for (a, one), (b, other) in itertools.combinations(LOOKS.items(), 2):
        if distance(one, other, shade) < CLOSE:
            assert one.dash != other.dash, (a, b)
            assert one.mark != other.mark, (a, b)


def test_pre_ln_and_post_ln_share_their_colours_with_no_placement():
    for name in ("pre_ln", "post_ln", "no_norm"):
        same = [other for other, look in LOOKS.items() if look.light == LOOKS[name].light]
        assert same == [name]


def test_the_shades_of_a_colour_are_of_one_hue():
    for look in LOOKS.values():
        _, *light = seen(look.light, "normal")
        _, *dark = seen(look.dark, "normal")
        if min(np.hypot(*light), np.hypot(*dark)) > 0.02:  # grey has none
            turn = np.angle(complex(*light) / complex(*dark), deg=True)
            assert abs(turn) < 15


def test_a_placement_looks_as_it_always_did():
    colours = {name: f"{look.light} {look.dark}" for name, look in LOOKS.items()}
    marks = "".join(look.mark for look in LOOKS.values())
    strokes = [len(look.dash) for look in LOOKS.values()]
    green, purple, ochre = "#004c1a #7cf99c", "#500378 #edb6ff", "#785200 #b18400"
    teal, rose = "#006458 #41d0c1", "#aa237e #f962c1"
    assert colours == {
        "pre_ln": "#0063b4 #66a1e3",
        "post_ln": "#c0521b #ff9a61",
        "no_norm": "#4e5156 #85898f",
        **dict.fromkeys(["peri_ln", "sandwich", "reordered", "normformer", "span"], green),
        **dict.fromkeys(["deepnorm", "keel", "admin", "sub_ln", "siamese"], purple),
        **dict.fromkeys(["ln_scaling", "mix_ln", "two_hop", "per_block"], ochre),
        **dict.fromkeys(["residual_dual", "b2t"], teal),
        **dict.fromkeys(["hybrid", "hybrid_star"], rose),
    }
    assert marks == "osX^Dv^osDvPosoDvosvD"
    assert strokes == [0] * 5 + [2] * 8 + [4] * 4 + [6] * 4


def test_a_placement_of_ones_own_has_a_look_by_its_name_alone():
    assert look_of("rezero") == Look("#785200", "#b18400", (11.0, 2.5), ">")
    assert look_of("rezero") == look_by_name("rezero")
    names = [f"placement_{number}" for number in range(500)]
    assert len({look_of(name) for name in names}) == 30
    assert not {look_of(name) for name in names} & set(LOOKS.values())


def test_looks_are_listed_of_placements_alone():
    assert set(LOOKS) <= set(PLACEMENTS)


def test_a_second_factor_changes_the_dash_and_nothing_else():
    for look in LOOKS.values():
        levels = [look.varied(level) for level in range(6)]
        assert levels[0] == look
        assert len({level.dash for level in levels}) == 6
        assert {(level.light, level.dark, level.mark) for level in levels} == {
            (look.light, look.dark, look.mark)
        }


def test_levels_look_as_what_they_are():
    assert looks_of(PLACEMENT, ["post_ln", "pre_ln"]) == [LOOKS["post_ln"], LOOKS["pre_ln"]]
    assert looks_of("optimizer.lr", [1e-3, 3e-3]) == scale_of(2)
    assert looks_of("optimizer.name", ["adamw", "sgd"]) == categories(2)
    assert looks_of("shortcut", [False, True]) == categories(2)
    assert len(set(categories(48))) == 48


@pytest.mark.parametrize("shade", SHADES)
def test_the_scale_of_numbers_rises_from_dark_to_light_for_every_reader(shade):
    colours = [getattr(look, shade) for look in scale_of(9)]
    for vision in VISION:
        tones = [seen(colour, vision)[0] for colour in colours]
        assert tones == sorted(tones)
