"""What `dnas find` says and writes; its page in a browser."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dnas.cli import main
from dnas.serve import find as find_module
from dnas.serve import gallery as gallery_module
from dnas.serve import indexing
from tests.retrain.test_report import HOSTILE, Page, browser
from tests.serve.stub import stub

__all__ = ["browser"]  # a fixture of this file too


@pytest.fixture
def folder(pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gallery of all pictures of the gallery split, one of which has a strange name and column, and one is gone."""
    for module in (indexing, gallery_module):
        monkeypatch.setattr(module, "load", lambda *words: stub())
    pictures = tmp_path / "pictures"
    shutil.copytree(pedestrians / "bounding_box_test", pictures)
    first, second = sorted(pictures.glob("*.jpg"))[:2]
    (tmp_path / "list.csv").write_text('path,who\n"pictures/x<b>&.jpg","' + HOSTILE.replace('"', '""') + '"\n')
    first.rename(pictures / "x<b>&.jpg")
    words = ["--device", "cpu", "-o", str(tmp_path / "gallery")]
    assert main(["index", "stub", str(tmp_path / "list.csv"), *words]) == 0
    named = [str(file) for file in pictures.glob("0*.jpg")]
    assert main(["index", "stub", *named, "--named", *words]) == 0
    second.unlink()
    return tmp_path / "gallery"


def test_table_csv_and_json(
    folder: Path, pedestrians: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = [str(file) for file in sorted((pedestrians / "query").glob("*.jpg"))[:3]]
    assert main(["find", str(folder), *queries, "-k", "4", "--where", "camera!=1"]) == 0
    assert "threshold 0.900: above it are 0.10% of pairs" in capsys.readouterr().out
    for name in ("found.json", "found.csv"):
        assert main(["find", str(folder), *queries, "-k", "4", "-o", str(tmp_path / name), "--rerank"]) == 0
    content = json.loads((tmp_path / "found.json").read_text())
    with (tmp_path / "found.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["path"] for line in lines] == [m["path"] for q in content["queries"] for m in q["found"]]
    assert [line["rank"] for line in lines] == ["1", "2", "3", "4"] * 3
    for line, match in zip(lines, (m for q in content["queries"] for m in q["found"]), strict=True):
        assert float(line["similarity"]) == pytest.approx(match["similarity"], abs=1e-5)
        assert (line["above_threshold"] == "1") == match["above"] == (match["similarity"] >= 0.9)


def test_gallery_verb(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["gallery", "list", str(folder), "--where", "camera=2"]) == 0
    lines = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert lines
    assert {line["camera"] for line in lines} == {"2"}
    assert main(["gallery", "remove", str(folder), "--where", "camera=2"]) == 0
    assert f"removed {len(lines)} pictures" in capsys.readouterr().out
    assert main(["gallery", "list", str(folder), "--where", "camera=2"]) == 0
    assert capsys.readouterr().out.splitlines() == ["path,who,identity,camera"]


def test_bad_input_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # what is indexed without -o goes into the folder at hand
    picture = next((tmp_path / "pictures").glob("0*.jpg"))
    (tmp_path / "empty").mkdir()
    for words, message in (
        (["find", str(tmp_path / "no"), str(picture)], "no gallery there"),
        (["find", str(folder), str(tmp_path / "empty")], "no images there"),
        (["find", str(folder), str(picture), "-k", "0"], "k: found 0"),
        (["find", str(folder), str(picture), "-o", "x.pdf"], "cannot write '.pdf', allowed: .html, .csv, .json"),
        (["find", str(folder), str(picture), "--where", "size=1"], "allowed: COLUMN=VALUE"),
        (["gallery", "remove", str(folder)], "give --where CONDITION"),
        (["index", "stub", str(tmp_path / "empty")], "no images there"),
        (["index", "stub", str(tmp_path / "list.csv") + ".npz"], "not a file of dnas embed"),
    ):
        assert main(words) == 2, words
        error = capsys.readouterr().err.strip()
        assert message in error
        assert "\n" not in error


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_page_in_a_browser(
    width: int, scheme: str, browser: Any, folder: Path, pedestrians: Path, tmp_path: Path
) -> None:
    """Photographs with similarity and verdict; no error, request or sideways scrolling; details open by keyboard."""
    from selenium.webdriver.common.keys import Keys

    queries = [str(file) for file in sorted((pedestrians / "query").glob("*.jpg"))[:3]]
    file = tmp_path / "found.html"
    assert main(["find", str(folder), *queries, "-k", "100", "-o", str(file)]) == 0
    page = Page(file.read_text())
    assert page.stack == []
    assert page.tags["script"] == 1
    assert HOSTILE in " ".join(page.words)
    assert "x<b>&.jpg" in page.words
    assert sum("the file is not there any more" in word for word in page.words) == 3
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(file.as_uri())
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert all(url.startswith(("data:", file.as_uri())) for url in urls), urls
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    dark = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(255, 255, 255)") == (scheme == "light")
    broken = "return [...document.images].filter((i) => !(i.complete && i.naturalWidth && i.alt)).length"
    assert browser.execute_script(broken) == 0
    verdicts = "return [...document.querySelectorAll('.hit')].map((h) => [h.className, h.innerText])"
    for name, text in browser.execute_script(verdicts):
        assert ("good" in name) == ("above the threshold" in text)
        assert ("weak" in name) == ("below the threshold" in text)
    summary = browser.find_element("css selector", "ol.hits summary")
    for _ in range(60):  # by keyboard alone, from the top of the page
        if browser.switch_to.active_element == summary:
            break
        browser.switch_to.active_element.send_keys(Keys.TAB)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert browser.execute_script("return document.querySelector('ol.hits details').open") is True
    assert "camera" in browser.find_element("css selector", "ol.hits details").text


def test_a_page_has_a_limit(
    folder: Path, pedestrians: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(find_module, "MOST_PHOTOGRAPHS", 10)
    assert main(["find", str(folder), str(pedestrians / "query"), "-o", str(tmp_path / "found.html")]) == 2
    assert "too many for one page, allowed: 10" in capsys.readouterr().err
