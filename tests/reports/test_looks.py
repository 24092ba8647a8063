"""Looks come from family and label: the same everywhere, different where they can be, none of them entered by hand."""

import itertools

import pytest

from bench.experiment.registries import METHODS
from reports.looks import PALETTES, Method, assigned, emphasised, in_order, ink, look, looks_of

OWN = [Method(METHODS[name].label, METHODS[name].family) for name in METHODS if METHODS[name].repeats is None]
OVER_ADAM = [
    Method("Random search: Adam", "search", "Adam", "training"), Method("TPE: Adam", "search", "Adam", "training"),
    Method("Population: Adam", "population", "Adam", "training"),
]  # fmt: skip


def test_our_own_methods_all_differ_in_colour():
    colours = [own.colour for own in assigned(OWN).values()]
    assert len(set(colours)) == len(OWN)


def test_colours_are_of_the_family():
    for method, (colour, *_) in zip(OWN, (assigned(OWN)[method.label] for method in OWN), strict=True):
        assert colour in PALETTES[method.family]


def test_a_method_keeps_its_look_whoever_stands_beside_it():
    alone = {method.label: assigned([method])[method.label] for method in OWN}
    assert assigned(OWN) == alone
    assert assigned(reversed(OWN)) == alone


def test_a_search_has_the_colour_of_what_it_repeats_and_dashes_of_its_own():
    found = assigned([Method("Adam", "training"), *OVER_ADAM])
    assert len({own.colour for own in found.values()}) == len({own.marker for own in found.values()}) == 1
    assert len({own.dashes for own in found.values()}) == 4
    assert [found[method.label].kind for method in OVER_ADAM] == ["Random search", "TPE", "Population"]
    assert assigned(OVER_ADAM)["TPE: Adam"].colour == found["Adam"].colour


def test_methods_that_nobody_knows_differ_too():
    """More of them than there are colours, of a family that nobody has heard of."""
    methods = [Method(f"Mine {number}", "mine") for number in range(12)]
    found = [(own.colour, own.marker, own.dashes) for own in assigned(methods).values()]
    assert len(set(found)) == 12
    five = [own.colour for own in assigned(methods[:5]).values()]
    assert len(set(five)) == 5


def test_a_label_that_collides_takes_the_next_free_place():
    size = len(PALETTES["online"])
    labels = [f"OHO {number}" for number in range(size)]
    assert len({own.colour for own in assigned([Method(label, "online") for label in labels]).values()}) == size


def test_methods_that_share_no_figure_may_look_alike():
    """So that the many labels of another experiment do not push a method off its colour."""
    alone = assigned([Method("Global OHO", "online")])["Global OHO"]
    others = [Method(f"{number}", "online", figures=frozenset({"sets"})) for number in range(9)]
    mine = Method("Global OHO", "online", figures=frozenset({"distribution"}))
    assert assigned([*others, mine])["Global OHO"] == alone
    both = mine._replace(figures=frozenset({"distribution", "sets"}))
    assert assigned([*others, both])["Global OHO"] not in [assigned(others)[other.label] for other in others]


def test_methods_stand_by_family_and_within_one_as_they_are_given():
    given = [OVER_ADAM[0], Method("Global OHO", "online"), Method("Step", "training"), Method("Mine", "mine"),
             Method("Adam", "training")]  # fmt: skip
    assert [method.label for method in in_order(given)] == ["Step", "Adam", "Mine", "Global OHO", "Random search: Adam"]


def test_methods_of_a_figure_differ_in_grey_too():
    found = assigned(OWN)
    assert len({own.marker for own in found.values()}) < len(OWN)
    coloured = [label for label in found if found[label].marker == found["Averaged OHO"].marker][:5]
    assert len(coloured) > 1
    with looks_of(OWN):
        apart = emphasised(coloured, coloured, first=coloured)
    assert len({own.marker for own in apart.values()}) == len(coloured)
    assert [own.colour for own in apart.values()] == [found[label].colour for label in coloured]


def test_a_method_and_its_search_differ_by_their_dashes():
    with looks_of([Method("Adam", "training"), *OVER_ADAM]):
        labels = ["Adam", *(method.label for method in OVER_ADAM)]
        assert len({own.marker for own in emphasised(labels, labels, first=labels).values()}) == 1


@pytest.mark.parametrize("colour", ["#A3CBE8", "#F4A582", "#000000", "#332288"])
def test_names_in_colour_can_be_read_on_white(colour):
    assert relative_luminance(ink(colour)) < 0.19
    if relative_luminance(channels(colour)) < 0.18:
        assert ink(colour) == pytest.approx(channels(colour))


def relative_luminance(channels):
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_looks_hold_within_their_block():
    with looks_of(OWN):
        assert look("Global OHO").colour in PALETTES["online"]
        assert look("nobody's").colour in PALETTES[""]
    assert look("Global OHO").colour in PALETTES[""]


def channels(colour):
    return [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]


def as_deuteranopes_see(colour):
    """Machado, Oliveira and Fernandes (2009), severity 1."""
    matrix = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    return [sum(weight * part for weight, part in zip(row, channels(colour), strict=True)) for row in matrix]


@pytest.mark.parametrize("family", PALETTES)
def test_colours_of_a_family_differ_for_the_colour_blind(family):
    for first, second in itertools.combinations(PALETTES[family], 2):
        a, b = as_deuteranopes_see(first), as_deuteranopes_see(second)
        assert sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5 > 0.08, (first, second)
