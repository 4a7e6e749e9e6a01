"""Charts and overlays: what is in them, from the same rows and arrays that run folders hold."""

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from dnas.draw.attention import ChannelUse, Maps, draw_channels, draw_maps
from dnas.draw.figures import as_svg, save, svg_element
from dnas.draw.retrieval import Hit, RankedList, draw_cmc, draw_distances, draw_plane, draw_ranked
from dnas.draw.search import draw_choices, draw_course, value_at
from dnas.draw.style import BLUE, PAPER, RED, blend, style
from dnas.draw.training import draw_training
from dnas.errors import UserError


def row(epoch: int) -> dict[str, object]:
    share = epoch / 10
    return {
        "epoch": epoch, "loss": {"id": 3 - share, "ibb": 0.5}, "temperature": 5.0 - share, "mask_temperature": 1.0,
        "probabilities": {"stage1.width": [0.5 + share, 0.5 - share], "stage1.attention": [0.2, 0.5, 0.3]},
        "entropy": {"stage1.width": 1 - share, "stage1.attention": 0.9}, "budget": "params", "target": 2e5,
        "expected_params": 3e5 - 1e4 * epoch, "held_out": {"mAP": share},
        "information": {"held_out": {"IB": -share, "tight bound": 0.2, "paper bound + H(X)": 1.0}},
    }  # fmt: skip


ROWS = [row(epoch) for epoch in range(4)]


def test_one_strip_for_each_choice() -> None:
    options = {"stage1.width": (16, 24), "stage1.attention": ("none", "dcs", "se")}
    figure = draw_choices(ROWS, options, {})
    strips = [axes for axes in figure.axes if axes.images and axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in strips] == ["stage1.width: 16 (80%)", "stage1.attention: dcs (50%)"]
    np.testing.assert_allclose(strips[0].images[0].get_array(), [[0.5, 0.6, 0.7, 0.8], [0.5, 0.4, 0.3, 0.2]])
    assert [label.get_text() for label in strips[1].get_yticklabels()] == ["none", "dcs", "se"]
    plt.close(figure)
    with pytest.raises(UserError, match="no epoch is logged yet"):
        draw_choices([], {}, {})


def test_a_strip_ends_in_what_derived_the_network() -> None:
    """Beside the epochs; the title and the bold label are of the derived network, which a budget may have changed."""
    options = {"stage1.width": (16, 24), "stage1.attention": ("none", "dcs", "se")}
    logits = {"stage1.width": [0.0, float(np.log(3))], "stage1.attention": [0.0, 0.0, float(np.log(2))]}
    rows = [*ROWS[:-1], {**ROWS[-1], "options": {"logits": logits}}]
    figure = draw_choices(rows, options, {"stage1.width": 24, "stage1.attention": "none"})
    strips = [axes for axes in figure.axes if axes.images and axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in strips] == ["stage1.width: 24 (75%)", "stage1.attention: none (25%)"]
    np.testing.assert_allclose(strips[0].images[1].get_array(), [[0.25], [0.75]])
    assert strips[1].get_xlabel() == "epoch; right: by options"
    bold = [label.get_text() for label in strips[1].get_yticklabels() if label.get_fontweight() == "bold"]
    assert bold == ["none"]
    for axes in strips:
        (_, end), (start, _) = (sorted(image.get_extent()[:2]) for image in axes.images)
        assert end < start
    plt.close(figure)


def lines(figure: Figure, title: str) -> dict[str, list[float]]:
    axes = next(axes for axes in figure.axes if axes.get_title() == title)
    return {str(line.get_label()): list(np.asarray(line.get_ydata(), float)) for line in axes.lines}


def test_the_course_of_a_search() -> None:
    figure = draw_course(ROWS)
    assert lines(figure, "expected parameters") == {"expected": [300.0, 290.0, 280.0, 270.0], "budget": [200.0, 200.0]}
    assert lines(figure, "held-out identities")["derived network"] == pytest.approx([0, 10, 20, 30])
    assert lines(figure, "loss terms")["id"] == pytest.approx([3, 2.9, 2.8, 2.7])
    assert set(lines(figure, "temperature")) == {"of the draws", "of DCS masks"}
    assert lines(figure, "information bottleneck and bounds")["IB, held-out"] == pytest.approx([0, -0.1, -0.2, -0.3])
    without = [{key: value for key, value in row.items() if key != "temperature"} for row in ROWS]
    assert set(lines(draw_course(without), "temperature")) == {"of DCS masks"}
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
    plt.close("all")
    assert np.isnan(value_at({"a": {"b": "word"}}, ("a", "b")))


def test_trainings_share_their_axes() -> None:
    figure = draw_training({"one": ROWS, "other": ROWS[:2]})
    assert {name: len(values) for name, values in lines(figure, "loss: ibb").items()} == {"one": 4, "other": 2}
    plt.close(figure)


def test_cmc_counts_queries_with_a_match_so_far() -> None:
    figure = draw_cmc({"run": np.array([1.0, 3.0, 3.0, np.nan, 60.0])})
    (line,) = figure.axes[0].lines
    values = np.asarray(line.get_ydata(), float)
    assert values[[0, 1, 2, 49]] == pytest.approx([25, 25, 75, 75])
    plt.close(figure)


def test_right_and_wrong_answers_can_be_told_without_colour() -> None:
    pixels = np.zeros((8, 4, 3), np.uint8)
    hits = [Hit(pixels, 0.1, 2, True), Hit(pixels, 0.25, 3, False)]
    figure = draw_ranked([RankedList(pixels, "query", hits), RankedList(pixels, "query", hits[:1])])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["query", "✓ 0.100\ncamera 2", "✗ 0.250\ncamera 3", "query", "✓ 0.100\ncamera 2", ""]
    right, wrong = figure.axes[1].spines["left"], figure.axes[2].spines["left"]
    assert right.get_linestyle() != wrong.get_linestyle()
    plt.close(figure)


def test_maps_distances_channels_and_plane_are_drawn(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (16, 8, 3), np.uint8) for _ in range(2)]
    maps = [
        Maps("stage 1: DCS", [rng.random((4, 2)), np.ones((4, 2))], (0.5, 0.25)),
        Maps("flat", [np.zeros((1, 1))] * 2),
    ]
    figure = draw_maps(pictures, ["a", "b"], maps)
    overlay = figure.axes[1].images[1].get_array()
    assert overlay is not None
    assert (overlay.min(), overlay.max()) == (0, 1)
    assert [float(line.get_xdata()[0]) for line in figure.axes[1].lines] == [2.0, 2.0]  # type: ignore[index]
    save(figure, tmp_path / "maps.png")
    pids, camids = np.array([1, 1, 2, 2]), np.array([1, 2, 1, 2])
    use = ChannelUse("stage 1: DCS", np.array([[1.0, 0.0, 0.5]] * 4), gates=False)
    figure = draw_channels([use], pids, camids)
    assert [bar.get_height() for bar in figure.axes[0].patches] == [1.0, 0.5, 0.0]
    assert not any(axes.get_title() == "by place" for axes in figure.axes)
    placed = draw_channels([replace(use, places_HW=np.array([[0.2, 0.9]])), use], pids, camids)
    (place,) = (axes for axes in placed.axes if axes.get_title() == "by place")
    assert np.asarray(place.images[0].get_array()).tolist() == [[0.2, 0.9]]
    save(figure, tmp_path / "channels.svg")
    save(draw_distances(rng.random(50), 1 + rng.random(50), "cosine"), tmp_path / "distances.pdf")
    figure = draw_plane(rng.random((4, 2)), pids, camids, "PCA")
    save(figure, tmp_path / "plane.svg")
    for file in tmp_path.iterdir():
        assert file.stat().st_size > 1000
    with pytest.raises(UserError, match=r"cannot draw '\.jpg', allowed: \.svg, \.png, \.pdf"):
        save(figure, tmp_path / "x.jpg")


def test_svgs_of_one_page_do_not_share_ids() -> None:
    def one(name: str) -> str:
        with style():
            figure, axes = plt.subplots()
            axes.plot([0, 1])
            axes.set_title("<b> & c")
        return as_svg(figure, name)

    first, second = one("a"), one("b")
    assert "<b>" not in first
    assert "currentColor" in first
    assert "<?xml" not in first

    def ids(text: str) -> set[str]:
        return {part.split('"')[0] for part in text.split(' id="')[1:]}

    assert ids(first)
    assert not ids(first) & ids(second)
    text = '<?xml?><svg width="20pt" height="9pt" viewBox="0 0 20 9"><g id="x"/><use href="#x"/></svg>'
    assert svg_element(text, "p") == (
        '<svg viewBox="0 0 20 9" style="width: 100%; max-width: 27px; height: auto" focusable="false"'
        ' aria-hidden="true"><g id="p-x"/><use href="#p-x"/></svg>'
    )


def test_blending() -> None:
    assert (blend(PAPER, BLUE, 0), blend(PAPER, BLUE, 1), blend("#000000", "#0000FF", 0.5)) == (PAPER, BLUE, "#000080")
    assert blend(RED, RED, 0.3) == RED


def test_letters_come_from_any_font_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from dnas.draw.style import fonts

    there = [SimpleNamespace(name=name) for name in ("Noto Sans CJK JP", "DejaVu Sans", "Comic")]
    monkeypatch.setattr("matplotlib.font_manager.fontManager", SimpleNamespace(ttflist=there))
    fonts.cache_clear()
    assert fonts() == ["DejaVu Sans", "Noto Sans CJK JP"]
    monkeypatch.undo()
    fonts.cache_clear()
    assert fonts()[0] == "DejaVu Sans"
