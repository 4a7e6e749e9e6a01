"""The report: what is in it, that names from strangers are only shown, and that a browser finds nothing wrong."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dnas.cli import main
from dnas.draw.page import Cell, Report, Section, Table, Text, render
from dnas.run.folder import RunFolder
from dnas.space.genotype import read_genotype

SMALL = ["--device", "cpu", "--input.height", "32", "--input.width", "16", "--optim.identities", "3"]
SMALL += ["--optim.images", "2", "--optim.epochs", "2"]


@pytest.fixture(scope="module")
def runs(pedestrians: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search, its retraining, and a fixed backbone with attention without and with the bound."""
    folder = tmp_path_factory.mktemp("runs")
    words = [*SMALL, "--data", str(pedestrians)]
    assert main(["search", *words, "--holdout", "0.4", "--budget.macs", "1M", "--out", str(folder / "search")]) == 0
    genotype = str(folder / "search")
    assert main(["retrain", *words, "--genotype", genotype, "--out", str(folder / "searched")]) == 0
    fixed = ["--backbone", "resnet18", "--backbone_width", "0.125", "--attention", "dcs,se,cbam_spatial,channel"]
    for name, eta in (("without", "0"), ("with", "0.3")):
        assert main(["retrain", *words, *fixed, "--loss.eta", eta, "--out", str(folder / name)]) == 0
    return folder


class Page(HTMLParser):
    """What a page has, counted; void tags and nesting are checked."""

    VOID = ("meta", "img", "br", "link", "path", "use", "rect", "polygon", "ellipse", "circle", "line", "image")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.stack: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags[tag] += 1
        self.attributes.append((tag, found))
        self.ids.update([str(found["id"])] if "id" in found else [])
        self.stack += [] if tag in self.VOID else [tag]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.slow
def test_everything_is_in_one_file(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    names = [str(runs / name) for name in ("search", "searched", "without", "with")]
    assert main(["report", *names, "-o", str(file), "--images", "2", "--device", "cpu"]) == 0
    page = Page(file.read_text())
    text = " ".join(page.words)
    found = json.loads((runs / "search" / "genotype.json").read_text())
    said = found["search"]["health"]["warnings"]
    health = said[0] if said else "nothing to worry about."
    assert page.stack == []
    assert [i for i, n in page.ids.items() if n > 1] == []
    for title in (
        "Comparison", "Search search", "Retraining searched", "Without and with the information bottleneck bound",
        "Accuracy over cost", "CMC curves", "Choices over time", "The course of the search", "The network it found",
        "Ranked lists, the worst queries first", "Where its attention looks", "The embedding in a plane",
        "Which channels it selects or weighs", "Distances of same and different identities", f"Health: {health}",
        "derived by", "Configuration", "Data and its fingerprint", "The command that makes it again:", "loss.eta",
    ):  # fmt: skip
        assert title in text, title
    assert "not drawn" not in text
    for key, option in found["choices"].items():
        assert f"{key}: {option} (" in text  # over its strip
    for tag, own in page.attributes:
        assert not str(own.get("src", "data:")).startswith(("http", "//", "file")), (tag, own)
        assert str(own.get("href", "#")).startswith("#")
        if tag == "img":
            assert own["alt"]
        if own.get("role") == "img":
            assert own["aria-label"]
    fingerprint = json.loads((runs / "with" / "data.json").read_text())["sha256"]
    assert fingerprint in text
    assert f"--config {runs}/with/config.yaml" in text


@pytest.mark.slow
def test_a_picture_that_cannot_be_drawn_is_a_warning(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No data set, no checkpoint, a damaged log: the rest of the report is there all the same."""
    broken = tmp_path / "broken"
    shutil.copytree(runs / "with", broken)
    shutil.rmtree(broken / "checkpoints")
    shutil.copytree(runs / "search", tmp_path / "found")
    (tmp_path / "found/metrics.jsonl").write_text('{"epoch": 0, "loss": 3}\n')
    file = tmp_path / "report.html"
    assert main(["report", str(broken), str(tmp_path / "found"), "-o", str(file)]) == 0
    captured = capsys.readouterr()
    assert "dnas: warning: broken: no pictures of what it looks at and retrieves" in captured.err
    assert "dnas: warning: Choices over time: not drawn" in captured.err
    assert "3 pictures could not be drawn" in captured.out
    text = " ".join(Page(file.read_text()).words)
    assert "Choices over time: not drawn" in text
    assert "CMC curves" in text
    assert main(["report", str(tmp_path), "-o", str(file)]) == 2
    assert "not a run folder" in capsys.readouterr().err
    assert main(["report", str(broken), "-o", str(tmp_path / "report.pdf")]) == 2
    assert "cannot write '.pdf', allowed: .html" in capsys.readouterr().err


HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)> & {{ 7 * 7 }}'


@pytest.mark.slow
def test_names_from_strangers_are_only_shown(runs: Path, tmp_path: Path) -> None:
    """In a report, in DOT and in SVG."""
    hostile = tmp_path / "hostile"
    shutil.copytree(runs / "search", hostile)
    genotype = json.loads((hostile / "genotype.json").read_text())
    genotype["search"]["health"]["warnings"] = [HOSTILE]
    interval = {"value": 0.41, "mean": 0.025, "low": -0.1, "high": 0.5}
    verdict = {"networks": HOSTILE, "epochs": 3, "metric": "mAP", "correlation": interval, "gain": {"mean": HOSTILE}}
    genotype["search"]["fidelity"] = verdict
    (hostile / "genotype.json").write_text(json.dumps(genotype))
    data = json.loads((hostile / "data.json").read_text())
    (hostile / "data.json").write_text(json.dumps({**data, "name": HOSTILE}))
    file = tmp_path / "report.html"
    assert main(["report", str(hostile), "-o", str(file)]) == 0
    page = Page(file.read_text())
    assert page.tags["script"] == 1  # the one that sorts tables
    assert HOSTILE in " ".join(page.words)
    assert "+0.41 [-0.10, +0.50]" in " ".join(page.words)
    assert not any("onerror" in found for _, found in page.attributes)
    cell = Cell(HOSTILE)
    items = [Text(HOSTILE), Table(HOSTILE, [HOSTILE], [[cell]], sortable=True)]
    page = Page(render(Report(HOSTILE, [HOSTILE], [Section("s", HOSTILE, items)], [HOSTILE])))
    assert page.tags["script"] == 1
    assert page.tags["img"] == 0


def find(*names: str) -> str | None:
    return next((found for name in names if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, where it is installed (Debian: chromium and chromium-driver)."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = find("chromium", "chromium-browser", "google-chrome"), find("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Chromium and its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "hide-scrollbars"):
        options.add_argument(f"--{word}")
    for word in ("disable-background-networking", "disable-component-update", "disable-sync"):
        options.add_argument(f"--{word}")
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield found
    found.quit()


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_in_a_browser(width: int, scheme: str, browser: Any, runs: Path, tmp_path: Path) -> None:
    """No error, no request, no sideways scrolling; tables sort by keyboard; every figure has its alternative text."""
    file = tmp_path / "report.html"
    if not file.exists():
        names = [str(runs / name) for name in ("search", "searched", "with")]
        assert main(["report", *names, "-o", str(file), "--images", "1", "--device", "cpu"]) == 0
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
    unnamed = "return [...document.querySelectorAll('figure img, figure [role=img]')]"
    unnamed += ".filter((f) => !(f.alt || f.ariaLabel)).length"
    assert browser.execute_script(unnamed) == 0
    small = "return [...document.querySelectorAll('figure .card')].filter((c) => c.offsetHeight < 60).length"
    assert browser.execute_script(small) == 0
    column = "return [...document.querySelectorAll('table[data-sortable] tbody tr')].slice(0, 2)"
    column += ".map((row) => row.cells[7 - 3 * 1].textContent)"  # MMACs
    button = "document.querySelectorAll('table[data-sortable] th button')[4]"
    orders = []
    for _ in range(2):
        browser.execute_script(f"{button}.focus()")
        browser.switch_to.active_element.send_keys("\ue007")  # Enter
        orders.append([float(text) for text in browser.execute_script(column)])
    assert orders[0] == sorted(orders[0])
    assert orders[1] == orders[0][::-1]
    sort = browser.execute_script(f"return {button}.parentElement.getAttribute('aria-sort')")
    assert sort == "descending"


@pytest.mark.slow
def test_draw_verbs(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every kind of picture by its command; wrong ones in one line."""
    with_bound, search = str(runs / "with"), str(runs / "search")
    for kind in ("choices", "course"):
        assert main(["draw", kind, search, "-o", str(tmp_path / f"{kind}.svg")]) == 0
    for key, option in read_genotype(runs / "search" / "genotype.json").choices.items():
        assert f"{key}: {option} (" in (tmp_path / "choices.svg").read_text()
    for kind in ("training", "attention", "gradcam", "channels", "ranked", "plane", "distances", "cmc"):
        several = [str(runs / "without")] if kind in ("training", "attention", "gradcam", "cmc") else []
        words = [kind, with_bound, *several, "-o", str(tmp_path / f"{kind}.png"), "--images", "2", "--device", "cpu"]
        assert main(["draw", *words]) == 0
        assert (tmp_path / f"{kind}.png").stat().st_size > 3000
    capsys.readouterr()
    for words, message in (
        (["choices", with_bound], "draw choices is for a search, this is a retrain"),
        (["ranked", with_bound, search], "draw ranked: found 2 runs, allowed: one"),
        (["ranked", search], "expected a retraining, found a search"),
        (["cmc", search], "compare reads retraining runs"),
        (["plane", with_bound, "-o", "x.bmp"], "cannot draw '.bmp', allowed: .svg, .png"),
        (["attention", with_bound, "--token", "[2,0]"], "token: found [2.0, 0.0], allowed: [ROW,COLUMN]"),
        (["dance", with_bound], "dance"),
    ):
        assert main(["draw", *words]) == 2
        error = capsys.readouterr().err.strip()
        assert message in error
        assert "\n" not in error


@pytest.mark.slow
def test_the_log_says_the_best_so_far(runs: Path) -> None:
    log = (RunFolder(runs / "search").path / "log.txt").read_text()
    assert "held-out mAP" in log
    assert "(best " in log


@pytest.mark.slow
def test_odd_run_folders_are_one_line(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files that no run has written: `draw` says so in one line, `report` goes on without that section."""
    genotype = json.loads((runs / "search/genotype.json").read_text())
    genotype["search"]["budget"] = {"macs": "x"}
    odd = {
        "bytes": ("metrics.jsonl", b'\xff\xfe{"epoch": 0}\n'),
        "rows": ("metrics.jsonl", b'{"epoch": 0}\n'),
        "budget": ("genotype.json", json.dumps(genotype).encode()),
        "surrogate": ("data.json", b'{"name": "\\ud800", "sha256": "x"}'),
        "number": ("data.json", b'{"name": "x", "n": 1' + b"0" * 400 + b"}"),
    }
    for name, (file, content) in odd.items():
        shutil.copytree(runs / "search", tmp_path / name)
        (tmp_path / name / file).write_bytes(content)
    for name in ("bytes", "rows"):
        for kind in ("choices", "course"):
            assert main(["draw", kind, str(tmp_path / name), "-o", str(tmp_path / "x.png")]) == 2
            error = capsys.readouterr().err.strip()
            assert "not as a run writes them" in error or "no epoch is logged yet" in error
            assert "\n" not in error
    file = tmp_path / "report.html"
    assert main(["report", *(str(tmp_path / name) for name in odd), "-o", str(file)]) == 0
    text = " ".join(Page(file.read_text()).words)
    assert "Search budget: its files are not as a run writes them (ValueError" in text
    assert "Search number: its files are not as a run writes them (OverflowError" in text
    assert "Search surrogate" in text


@pytest.mark.slow
def test_names_that_matplotlib_would_take_for_markup(runs: Path, tmp_path: Path) -> None:
    """A run called _base is in the legend; dollars are no formula; two folders of one name are two curves."""
    for name in ("_base", r"a$\foo$", "x/with", "y/with"):
        shutil.copytree(runs / "with", tmp_path / name)
    names = [str(tmp_path / name) for name in ("_base", r"a$\foo$", "x/with", "y/with")]
    assert main(["draw", "cmc", *names, "-o", str(tmp_path / "cmc.svg")]) == 0
    file = tmp_path / "report.html"
    assert main(["report", *names, "-o", str(file), "--images", "0"]) == 0
    text = " ".join(Page(file.read_text()).words)
    assert "not drawn" not in text
    assert f"{tmp_path}/x/with" in text
    assert "_base" in text
