"""Fonts with and without Hangul, and labels that do not lie on one another."""

from __future__ import annotations

import pytest

from eeve_axolotl.report import fonts as fonts_of_the_machine
from eeve_axolotl.report import plots
from eeve_axolotl.report.collect import collect
from tests.report.pipeline import NEW, make


@pytest.fixture
def fonts(monkeypatch):
    """Matplotlib with its own fonts only; the function given sets those that the machine has."""
    from matplotlib import font_manager

    monkeypatch.setattr(fonts_of_the_machine, "PACKAGE", "a_package_that_is_not_installed")

    own = [entry for entry in font_manager.fontManager.ttflist if "mpl-data" in entry.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)

    def installed(*paths):
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(path) for path in paths])

    installed()
    fonts_of_the_machine.fonts.cache_clear()
    yield installed
    fonts_of_the_machine.fonts.cache_clear()


def font_file(path, family: str, characters: str):
    """A font that has a square for each of `characters`."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(point)
    pen.closePath()
    names = [".notdef", *(f"u{ord(character):04X}" for character in characters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap(dict(zip(map(ord, characters), names[1:], strict=True)))
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular", "psName": family})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def test_without_hangul_a_token_is_its_id(fonts):
    found = fonts_of_the_machine.fonts()
    assert found.families == ("DejaVu Sans",)
    assert found.token("▁school", {}) == "▁school"
    assert found.token("▁학교", NEW) == "#32000"
    assert found.token("모름", NEW) == "?"


def test_hangul_is_drawn_where_the_machine_has_no_font_for_it(fonts, monkeypatch):
    monkeypatch.setattr(fonts_of_the_machine, "PACKAGE", "koreanize_matplotlib")
    found = fonts_of_the_machine.fonts()
    assert found.families == ("DejaVu Sans", "NanumGothic")
    assert found.token("▁학교", NEW) == "▁학교" and found.can_draw("뷁쀍힣")


def test_a_font_with_hangul_is_found_whatever_its_name(fonts, tmp_path):
    fonts(
        font_file(tmp_path / "latin.ttf", "Aaa", "abc"),
        font_file(tmp_path / "hangul.ttf", "Zzz", "".join(sorted(set("가학교하늘바다나무")))),
    )
    found = fonts_of_the_machine.fonts()
    assert found.families == ("DejaVu Sans", "Zzz")
    assert found.token("▁학교", NEW) == "▁학교"
    assert found.token("▁빵", {"▁빵": 7}) == "#7"  # this font lacks it


def test_the_caption_says_when_ids_stand_for_hangul(fonts, tmp_path):
    output = make(tmp_path / "pipeline", done=1, evaluated=(0, 1))
    caption = plots.draw(collect(output), tmp_path)["neighbours"].caption
    assert "No installed font has Hangul: the plot shows token ids" in caption


@pytest.mark.filterwarnings("error:Glyph")
def test_with_the_font_hangul_is_drawn(fonts, tmp_path):
    fonts(font_file(tmp_path / "hangul.ttf", "Zzz", "".join(sorted(set("가학교하늘바다나무天")))))
    output = make(tmp_path / "pipeline", done=1, evaluated=(0, 1))
    assert "token ids" not in plots.draw(collect(output), tmp_path)["neighbours"].caption


@pytest.mark.filterwarnings("error:Glyph")
def test_a_text_named_in_hangul_gets_a_number_where_no_font_has_it(fonts, tmp_path):
    output = make(tmp_path / "pipeline", done=1, evaluated=(0, 1))
    for path in (output / "evaluation").glob("*.json"):
        path.write_text(path.read_text(encoding="utf-8").replace('"Korean"', '"한국어"'), encoding="utf-8")
    caption = plots.draw(collect(output), tmp_path)["bits"].caption
    assert "text 3 is 한국어" in caption  # after the two that the pipeline names


def test_labels_are_moved_apart_and_no_further_than_need_be():
    moved = plots._apart({"a": 1.0, "b": 1.01, "c": 1.02, "far": 5.0}, 0.5)
    assert moved["far"] == 5.0
    assert [moved[name] for name in "abc"] == pytest.approx([0.51, 1.01, 1.51])
