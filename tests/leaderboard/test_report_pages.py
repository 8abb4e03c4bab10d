"""The report in a browser: tables, cases, overlays, playback, comparison, keys, phones, dark, hostile text."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.site_results import CLICKS, STATIC, evaluate, known

from promptseg.leaderboard.site.build import Plan, build
from promptseg.results.parquet import write_parquet
from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult, ResultRow
from promptseg.specs import Cell
from promptseg.verdicts.baselines import Baseline
from promptseg.verdicts.thresholds import Threshold

pytest.importorskip("pycocotools")
pytest.importorskip("jinja2")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
LOCAL = ("file:", "data:")
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start a browser once for all tests."""
    with playwright.sync_playwright() as started:
        options = [*QUIET, "--disable-component-update", "--disable-sync"]
        found = started.chromium.launch(executable_path=CHROMIUM, args=options)
        yield found
        found.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a report of a model before and after a change: three cells, of which two are in both runs."""
    folder = tmp_path_factory.mktemp("site")
    evaluate(known(folder, 0.05), folder / "before", STATIC, CLICKS)
    found = known(folder, 0.2)
    evaluate(found, folder / "after", STATIC, CLICKS)
    other = Cell("blob", "phantom_us", "box_all")
    evaluate(found, folder / "after", other, masks=False)
    thresholds = {
        cell: Threshold(value=value, select="confident", tolerance=0.0, source="a test")
        for cell, value in ((STATIC, 0.1), (other, 0.99))
    }
    plan = Plan(
        results=folder / "after",
        registry=found,
        thresholds=thresholds,
        cases=24,
        baseline=Baseline("main", folder / "before"),
    )
    build(plan, folder / "site")
    return folder / "site"


class Opened:
    """A page, and what went wrong on it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("console", lambda message: self.complain(message.text if message.type == "error" else None))
        page.on("pageerror", lambda error: self.complain(str(error)))
        page.on("dialog", lambda dialog: self.complain("dialog"))
        page.on("request", lambda request: self.complain(None if request.url.startswith(LOCAL) else request.url))

    def complain(self, fault: str | None) -> None:
        """Keep what went wrong, if anything did."""
        self.faults += [fault] if fault else []

    def go(self, path: Path, anchor: str = "") -> Opened:
        """Open a file."""
        self.page.goto(path.as_uri() + anchor)
        return self

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements that a selector finds, once there is one: a page takes a moment to fill."""
        self.page.locator(selector).first.wait_for(state="attached")
        return [text.strip() for text in self.page.locator(selector).all_inner_texts()]

    def text(self, selector: str) -> str:
        """Return the text of the only element."""
        return str(self.page.locator(selector).inner_text())

    def pixel(self, x: float, y: float) -> list[int]:
        """Return RGBA of the masks at a place given as parts of the image's sides."""
        return list(
            self.page.evaluate(
                "([x, y]) => { const c = document.querySelector('canvas[data-part=masks]');"
                "return [...c.getContext('2d').getImageData(x * c.width, y * c.height, 1, 1).data]; }",
                [x, y],
            )
        )

    def colours(self) -> dict[str, int]:
        """Return how many pixels of the masks have each RGBA."""
        script = (
            "() => { const c = document.querySelector('canvas[data-part=masks]'), found = {};"
            "const { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height);"
            "for (let i = 0; i < data.length; i += 4) {"
            "const rgba = data.slice(i, i + 4).join(); found[rgba] = (found[rgba] || 0) + 1; }"
            "return found; }"
        )
        return dict(self.page.evaluate(script))

    def is_painted(self) -> bool:
        """Whether any mask is drawn."""
        script = (
            "() => { const c = document.querySelector('canvas[data-part=masks]');"
            "return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(Boolean); }"
        )
        return bool(self.page.evaluate(script))


@pytest.fixture
def opened(browser: Any) -> Iterator[Opened]:
    """Return an empty page; at the end nothing may have gone wrong on it."""
    context = browser.new_context(viewport=DESK)
    found = Opened(context.new_page())
    yield found
    assert found.faults == []
    context.close()


def test_the_board_sorts(opened: Opened, site: Path) -> None:
    """By any column, up and down, by mouse or keyboard; the column says so to screen readers."""
    opened.go(site / "index.html")
    page, means = opened.page, "tbody td:nth-child(6) b"
    first = [float(text) for text in opened.texts(means)]
    assert len(first) == 3
    assert first == sorted(first, reverse=True)
    page.get_by_role("button", name="Mean IoU").click()
    assert [float(text) for text in opened.texts(means)] == sorted(first)
    page.get_by_role("button", name="Task").focus()
    page.keyboard.press("Enter")
    assert opened.texts("tbody td:nth-child(2)") == ["phantom_ct", "phantom_ct", "phantom_us"]
    page.keyboard.press("Enter")
    assert opened.texts("tbody td:nth-child(2)") == ["phantom_us", "phantom_ct", "phantom_ct"]
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("Task")


def test_the_board_filters(opened: Opened, site: Path) -> None:
    """By task, modality, mode and verdict, or by a part of a name; the address keeps it."""
    opened.go(site / "index.html")
    page = opened.page
    page.get_by_label("Modality").select_option("ultrasound")
    assert opened.texts("tbody td:nth-child(4)") == ["box_all"]
    assert opened.text(".pager span") == "1\u20131 of 1 (of 3)"
    page.reload()
    assert opened.texts("tbody td:nth-child(4)") == ["box_all"]
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Threshold").select_option("missed")
    assert opened.texts("tbody td:nth-child(8)") == ["missed"]
    page.get_by_label("Threshold").select_option("reached")
    assert opened.texts("tbody td:nth-child(4)") == ["box_each"]
    page.get_by_label("Threshold").select_option("")
    page.get_by_label("Search").fill("CLICKS")
    assert opened.texts("tbody td:nth-child(4)") == ["clicks_confident"]
    page.get_by_label("Search").fill("nothing")
    assert opened.text(".pager span") == "none (of 3)"


def test_cases_are_found(opened: Opened, site: Path) -> None:
    """The worst comes first; best, size, percentile and a part of an id lead to others; the address leads back."""
    page = opened.go(site / f"cells/{STATIC.id}.html").page
    values = [float(text) for text in opened.texts("tbody td:nth-child(5)")]
    ids = [text.removeprefix("▣\u00a0") for text in opened.texts("tbody .case")]
    assert values == sorted(values)
    assert opened.text("#case") == ids[0]
    page.get_by_role("button", name="Best").click()
    assert opened.text("#case") == ids[-1]
    assert opened.text("#percent") == "100"
    page.locator("#percentile").fill("50")
    assert opened.text("#case") == ids[6]
    assert opened.text("#percent") == "50"
    page.get_by_role("button", name="Smallest").click()
    assert opened.text("#case") == "tiny_00"
    assert page.url.endswith("#case=tiny_00")
    page.reload()
    assert opened.text("#case") == "tiny_00"
    assert opened.text("tr[aria-current=true] .case") == "▣\u00a0tiny_00"
    page.get_by_label("Search by id").fill("HOLLOW")
    assert sorted(opened.texts("tbody .case")) == ["▣\u00a0hollow_00", "▣\u00a0hollow_01"]
    box = page.locator("#scatter").bounding_box()
    page.mouse.click(box["x"] + 2, box["y"] + box["height"] - 2)
    assert opened.text("#case") == "tiny_00"


def test_overlays_can_be_switched(opened: Opened, site: Path) -> None:
    """Image, target, each choice of mask, candidates and prompts: by checkbox and by key."""
    page = opened.go(site / f"cells/{STATIC.id}.html", "#case=large_00").page
    box = page.locator("svg.prompts rect")
    assert box.count() == 1
    assert opened.is_painted()
    page.get_by_role("checkbox", name="target").uncheck()
    page.keyboard.press("c")
    assert not opened.is_painted()
    page.keyboard.press("2")
    assert page.get_by_role("checkbox", name="candidate 2").is_checked()
    assert opened.pixel(0.5, 0.5)[:3] == pytest.approx([250] * 3, abs=2)
    page.keyboard.press("2")
    page.keyboard.press("f")
    assert opened.is_painted()
    page.keyboard.press("p")
    assert box.count() == 0
    assert page.locator("img").is_visible()
    page.keyboard.press("i")
    assert not page.locator("img").is_visible()
    page.keyboard.press("z")
    assert "scale(" in page.locator(".layers").get_attribute("style")


def test_a_mask_is_painted_where_it_is(opened: Opened, site: Path) -> None:
    """Inside and outside of the target, against the target itself."""
    from promptseg.datasets_registry.phantom import CT, load

    target = load(CT, None).labels("border_00") > 0
    page = opened.go(site / f"cells/{STATIC.id}.html", "#case=border_00").page
    page.keyboard.press("c")
    height, width = target.shape
    for y in range(3, height, 24):
        for x in range(3, width, 24):
            assert (opened.pixel((x + 0.5) / width, (y + 0.5) / height)[3] > 0) == target[y, x], (x, y)


def test_lines_lie_over_insides_and_have_a_dark_edge(opened: Opened, site: Path) -> None:
    """A larger mask does not tint the target's line, and the line is seen on an image of its colour."""
    page = opened.go(site / f"cells/{STATIC.id}.html", "#case=large_00").page
    page.keyboard.press("2")
    assert opened.colours()["0,190,135,255"] > 100
    for key in "2c":
        page.keyboard.press(key)
    assert opened.colours()["0,0,0,150"] > 100


def test_plots_have_letters_of_one_size(opened: Opened, site: Path) -> None:
    """The scatter plot is a canvas, the histogram is not: they are as wide, of as many units, with the same letters."""
    page = opened.page
    for width in (DESK, PHONE):
        page.set_viewport_size(width)
        opened.go(site / f"cells/{STATIC.id}.html").texts("tbody .case")
        letters = page.evaluate(
            "[getComputedStyle(document.querySelector('.plot text')).fontSize,"
            "document.querySelector('canvas.plot').getContext('2d').font].map(parseFloat)"
        )
        assert letters[0] == letters[1]
        units, shown = page.evaluate(
            "(() => { const [svg, canvas] = document.querySelectorAll('.plot');"
            "return [[svg.viewBox.baseVal.width, canvas.width],"
            "[svg, canvas].map(e => e.getBoundingClientRect().width)]; })()"
        )
        assert units[0] == units[1]
        assert shown[0] == pytest.approx(shown[1], abs=0.5)


def test_a_table_of_all_columns_is_not_cut(opened: Opened, tmp_path: Path) -> None:
    """Subjects, three choices of mask, the last click: no column hides behind the picture or beyond a phone's edge."""
    rows = tuple(
        ResultRow(case_id=f"hippocampus_{i:03}_z14", subject_id=f"hippocampus_{i:03}", click=click, area_fraction=0.1,
            n_components=1, iou_first=0.4, iou_confident=0.5, iou_oracle=0.6)
        for i in range(3) for click in range(1, 10)
    )  # fmt: skip
    found = CellResult(
        cell=CLICKS, fingerprint="f" * 64, rows=rows, n_examined=3, provenance=Provenance.from_json({"n_images": 3})
    )
    write_parquet(tmp_path / "results/blob/phantom_ct/clicks_confident.parquet", found)
    build(Plan(results=tmp_path / "results", registry=known(tmp_path, 0.2), thresholds={}, cases=24), tmp_path / "site")
    page = opened.go(tmp_path / f"site/cells/{CLICKS.id}.html").page
    for width in (DESK, {"width": 1024, "height": 768}, PHONE):
        page.set_viewport_size(width)
        assert page.get_by_role("columnheader", name="Last click").is_visible()
        assert page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.scroll'))") == 0
        assert page.evaluate("document.documentElement.scrollWidth") == width["width"]


def test_texts_of_a_table(opened: Opened, tmp_path: Path) -> None:
    """Long ids break behind an underscore; the size of a tiny object is not 0.00; one case is no cases."""
    case = "hepatic_vessel_of_a_patient_with_a_long_name_" + "0" * 8
    row = ResultRow(
        case_id=case, area_fraction=2.5e-5, n_components=1, iou_first=0.4, iou_confident=0.4, iou_oracle=0.4
    )
    found = CellResult(
        cell=STATIC, fingerprint="f" * 64, rows=(row,), n_examined=1, provenance=Provenance.from_json({"n_images": 1})
    )
    write_parquet(tmp_path / "results/blob/phantom_ct/box_each.parquet", found)
    build(Plan(results=tmp_path / "results", registry=known(tmp_path, 0.2), thresholds={}, cases=24), tmp_path / "site")
    page = opened.go(tmp_path / f"site/cells/{STATIC.id}.html").page
    page.set_viewport_size(PHONE)
    assert opened.texts("tbody .case") == [case]
    assert opened.texts("tbody .number")[0] == "0.0025"
    lines = page.evaluate(
        "() => [...document.querySelectorAll('tbody .case wbr')].map(e => e.previousSibling)"
        ".map(text => { const r = document.createRange(); r.selectNode(text); return r.getClientRects().length; })"
    )
    assert len(lines) == 10
    assert set(lines) == {1}
    assert "1 case, confident mask" in opened.text(".score")


def test_clicks_are_played(opened: Opened, site: Path) -> None:
    """Back, forth, by slider and by key; a play ends at the last click."""
    page = opened.go(site / f"cells/{CLICKS.id}.html").page
    points, status = page.locator("svg.prompts .point"), page.locator("[data-part=status]")
    assert status.inner_text().startswith("Click 9 of 9. IoU: ")
    page.get_by_label("Click", exact=True).fill("0")
    assert status.inner_text().startswith("Click 1 of 9.")
    assert points.count() == 1
    page.locator("#case").click()
    page.keyboard.press(".")
    page.keyboard.press(".")
    page.keyboard.press(",")
    assert status.inner_text().startswith("Click 2 of 9.")
    page.get_by_label("Click", exact=True).fill("7")
    page.get_by_role("button", name="Play").click()
    assert page.get_by_role("button", name="Pause").is_visible()
    page.get_by_role("button", name="Play").wait_for(timeout=60_000)
    assert status.inner_text().startswith("Click 9 of 9.")
    assert page.locator("[data-part=curve] polyline").count() == 1


def test_two_runs_are_compared(opened: Opened, site: Path) -> None:
    """The board of differences leads to the cases that changed most, with the masks of both runs over one image."""
    page = opened.go(site / "compare.html").page
    assert opened.text("h1").endswith("against main")
    assert len(opened.texts("tbody tr")) == 2
    assert "Only after: blob-phantom_us-box_all" in opened.text("main")
    page.get_by_label("Prompt mode").select_option("box_each")
    page.get_by_role("link", name="blob").click()
    assert opened.texts(".jumps button")[:2] == ["Lost most", "Gained most"]
    deltas = [float(text.replace("\u2212", "-")) for text in opened.texts("tbody td:nth-child(5)")]
    assert deltas == sorted(deltas)
    assert deltas[0] != deltas[-1]
    for key in "tba":
        assert opened.is_painted()
        page.keyboard.press(key)
    assert not opened.is_painted()
    assert opened.text("[data-part=status]").startswith("IoU: before 0.")


def test_all_of_it_works_by_keyboard(opened: Opened, site: Path) -> None:
    """The first stop skips to the content, every control can be reached and shows its focus, j and k walk the cases."""
    page = opened.go(site / f"cells/{STATIC.id}.html").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    first = opened.text("#case")
    page.keyboard.press("j")
    assert opened.text("#case") != first
    page.keyboard.press("k")
    assert opened.text("#case") == first
    page.locator("tbody .case").nth(3).focus()
    page.keyboard.press("Enter")
    assert opened.text("tr[aria-current=true] .case") == page.evaluate("document.activeElement.innerText")
    first = opened.text("#case")
    page.get_by_label("Search by id").press_sequentially("jik")
    assert opened.text("#case") == first
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, select, a')].filter(e => e.tabIndex < 0 ||"
        " !(e.textContent || e.ariaLabel || e.labels?.[0]?.textContent)).map(e => e.outerHTML)"
    )
    assert unnamed == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone_and_the_dark(browser: Any, site: Path, scheme: str) -> None:
    """Nothing scrolls sideways at 390 pixels, and paper and ink are those of the scheme, far enough apart."""
    context = browser.new_context(viewport=PHONE, color_scheme=scheme)
    opened = Opened(context.new_page())
    for path in ("index.html", f"cells/{CLICKS.id}.html", "compare.html", f"compare/{CLICKS.id}.html"):
        opened.go(site / path)
        assert opened.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        paper, ink = opened.page.evaluate(
            "['backgroundColor', 'color'].map(k => Number(getComputedStyle(document.body)[k].match(/\\d+/)[0]))"
        )
        assert (paper > ink) == (scheme == "light")
        assert abs(paper - ink) > 180
    assert opened.faults == []
    context.close()


def hostile(folder: Path, text: str) -> Path:
    """Write a report in which every text that a plugin or a data set gives is ``text``."""
    rows = [ResultRow(case_id=case, subject_id=text, iou_first=v, iou_confident=v, iou_oracle=v, area_fraction=0.1)
            for case, v in ((text, 0.4), ("__proto__", 0.5), ("constructor", 0.6))]  # fmt: skip
    rows.append(ResultRow(case_id=f"{text}!", error=text))
    about = {"dataset": {"name": text, "modality": text, "licence": text}, "model": {"family": text}, "n_images": 4}
    name = text.replace("/", "")  # a folder's name
    cell = Cell(name, name, name)
    found = CellResult(
        cell=cell, fingerprint="f" * 64, rows=tuple(rows), n_examined=4, provenance=Provenance.from_json(about)
    )
    for run in ("results", "before"):
        write_parquet(folder / run / cell.model / cell.task / f"{cell.mode}.parquet", found)
    threshold = Threshold(value=0.9, select="first", tolerance=0.0, source=text)
    plan = Plan(results=folder / "results", registry=known(folder, 0.2), thresholds={cell: threshold}, cases=24,
                baseline=Baseline(text, folder / "before"))  # fmt: skip
    build(plan, folder / "site")
    return folder / "site"


@pytest.mark.parametrize(
    "text", ["<img src=x onerror=hacked=1>\"'>{{ 7 * 7 }}\u2028", "';hacked=1;//</script><script>hacked=1</script>"]
)
def test_hostile_text_is_shown_and_never_obeyed(opened: Opened, tmp_path: Path, text: str) -> None:
    """Names, ids, subjects, errors, licences: the page shows them letter by letter, and no script of theirs runs."""
    site = hostile(tmp_path, text)
    page = opened.go(site / "index.html").page
    assert opened.texts("tbody td:nth-child(3)") == [text.strip()]
    page.locator("tbody a").click()
    page.locator("tbody .case").first.wait_for()
    assert set(opened.texts("tbody .case")) == {text.strip(), f"{text}!".strip(), "__proto__", "constructor"}
    page.locator("#which").select_option("failed")
    page.locator("tbody .case").click()
    assert opened.text("#case") == f"{text}!".strip()
    page.locator("#which").select_option("all")
    for case in ("__proto__", "constructor"):
        page.get_by_role("button", name=case).click()
        assert opened.text("#case") == case
    page.locator("details.origin summary").click()
    page.goto((site / "compare.html").as_uri())
    page.locator("tbody a").click()
    for name in ("index.html", "compare.html", *(p.relative_to(site).as_posix() for p in site.glob("*/*.html"))):
        page.goto((site / name).as_uri())
        assert page.evaluate("typeof hacked") == "undefined"
        assert page.locator("img[src=x], script:not([src]), [onerror]").count() == 0


def test_the_policy_forbids_what_slips_through(browser: Any, site: Path) -> None:
    """Even markup that got into a page could run no script of its own, and reach nothing outside of the folder."""
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'hacked = 1'; document.body.append(s);"
        "const d = document.createElement('div'); d.setAttribute('onclick', 'hacked = 1'); document.body.append(d);"
        "d.click(); }"
    )
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.evaluate("fetch('https://example.org/').then(() => 'sent', () => 'refused')") == "refused"
    page.close()


def test_fifty_thousand_cases(opened: Opened, tmp_path: Path) -> None:
    """A page of so many cases shows a page of rows, sorts, searches and finds its last percentile."""
    rows = tuple(
        ResultRow(case_id=f"case_{i:05}", subject_id=f"p{i % 900}", area_fraction=(i % 997 + 1) / 2000, n_components=1,
            iou_first=v, iou_confident=v, iou_oracle=v)
        for i in range(50_000) for v in [(i * 7919 % 50_000) / 50_000]
    )  # fmt: skip
    found = CellResult(
        cell=STATIC,
        fingerprint="f" * 64,
        rows=rows,
        n_examined=50_000,
        provenance=Provenance.from_json({"n_images": 50_000}),
    )
    write_parquet(tmp_path / "results/blob/phantom_ct/box_each.parquet", found)
    build(Plan(results=tmp_path / "results", registry=known(tmp_path, 0.2), thresholds={}, cases=24), tmp_path / "site")
    page = opened.go(tmp_path / f"site/cells/{STATIC.id}.html").page
    assert page.locator("tbody tr").count() == 50
    page.get_by_role("button", name="Case", exact=True).click()
    page.get_by_role("button", name="Case", exact=True).click()
    assert opened.texts("tbody .case")[0] == "case_49999"
    page.get_by_label("Search by id").fill("case_0007")
    assert opened.text(".pager span") == "1\u201310 of 10 (of 50,000)"
    page.get_by_label("Search by id").fill("")
    page.get_by_role("button", name="Best").click()
    assert opened.texts("#facts dd")[-1] == "50,000 of 50,000"
