"""The report in a real browser: seeing, dragging, typing and touching."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import PHONE, Tab, new_tab, start
from helpers import smooth_pixels, write

from restormer_cli.report.build import write_report

HEIGHT, WIDTH = 400, 600
BLACK, WHITE = 40, 200


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with start() as browser:
        yield browser


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    with new_tab(browser) as tab:
        yield tab


@pytest.fixture
def phone(browser: Any) -> Iterator[Tab]:
    with new_tab(browser, **PHONE) as tab:
        yield tab


def flat(value: int) -> Any:
    return np.full((HEIGHT, WIDTH, 3), value, np.uint8)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark inputs and bright results, each nearer to its target than the last; two failures."""
    folder = tmp_path_factory.mktemp("report")
    for number in range(1, 13):
        name = f"{'cat' if number % 2 else 'dog'} {number}.png"
        write(folder / "in" / name, flat(BLACK))
        write(folder / "out" / name, flat(WHITE))
        write(folder / "gt" / name, flat(WHITE + 2 * number))
    failed = {"status": "failed", "seconds": None, "width": None, "height": None}
    lines = [
        {"input": f"in/{name}.png", "result": "", "error": f"in/{name}.png: is damaged", **failed}
        for name in ("bird 1", "bird 2")
    ]
    text = "\n".join(map(json.dumps, lines))
    (folder / "out" / "run.jsonl").write_text(text, encoding="utf-8")
    written = write_report(folder / "out", input_dir=folder / "in", target_dir=folder / "gt")
    assert written.beside is None
    return written.html


def boundary(pixels: Any) -> float:
    """Where dark ends and bright begins, as a share of the picture's width."""
    row = pixels[round(0.4 * pixels.shape[0])].mean(axis=1)  # above the grip
    inside = np.flatnonzero((abs(row - BLACK) < 3) | (abs(row - WHITE) < 3))
    dark = np.flatnonzero(abs(row - BLACK) < 3)
    if not dark.size:
        return 0.0
    return float((dark.max() - inside.min()) / (inside.max() - inside.min()))


def drag(tab: Tab, start: tuple[float, float], end: tuple[float, float]) -> None:
    tab.page.mouse.move(*start)
    tab.page.mouse.down()
    tab.page.mouse.move(*end, steps=4)
    tab.page.mouse.up()


def middle(tab: Tab, selector: str) -> tuple[float, float]:
    box = tab.page.locator(selector).first.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def transforms(tab: Tab) -> list[str]:
    return tab.page.eval_on_selector_all(".pane img", "all => all.map(i => i.style.transform)")


# --- the slider ---------------------------------------------------------------------------------


def test_the_slider_moves_the_boundary(tab: Tab, report: Path) -> None:
    tab.open(report)
    tab.open_viewer(2)
    assert boundary(tab.pixels("#stage")) == pytest.approx(0.5, abs=0.03)
    x, y = middle(tab, "#boundary")
    left = tab.page.locator("#stage img").first.bounding_box()
    aim = left["x"] + 0.8 * left["width"]
    drag(tab, (x, y), (aim, y))
    assert boundary(tab.pixels("#stage")) == pytest.approx(0.8, abs=0.03)
    # Anywhere on a picture that is in sight as a whole will do.
    drag(tab, (left["x"] + 0.5 * left["width"], y), (left["x"] + 0.3 * left["width"], y))
    assert boundary(tab.pixels("#stage")) == pytest.approx(0.3, abs=0.03)
    slider = tab.page.get_by_role("slider", name="Boundary between before and after")
    assert slider.get_attribute("aria-valuenow") == "30"


def test_the_slider_answers_to_keys(tab: Tab, report: Path) -> None:
    tab.open(report)
    tab.open_viewer(2)
    slider = tab.page.get_by_role("slider")
    assert slider.evaluate("element => element === document.activeElement")
    for key, expected in (
        ("ArrowRight", 52),
        ("Shift+ArrowRight", 62),
        ("ArrowLeft", 60),
        ("End", 100),
        ("Home", 0),
        ("ArrowUp", 2),
    ):
        tab.page.keyboard.press(key)
        assert slider.get_attribute("aria-valuenow") == str(expected)
    tab.page.keyboard.press("End")
    assert boundary(tab.pixels("#stage")) == pytest.approx(1.0, abs=0.03)


def test_the_slider_answers_to_a_finger(phone: Tab, report: Path) -> None:
    phone.open(report)
    phone.open_viewer(2)
    x, y = middle(phone, "#boundary")
    phone.touch([(x, y), (x + 40, y), (x + 97, y)])
    assert boundary(phone.pixels("#stage")) == pytest.approx(0.75, abs=0.03)


def test_a_thumbnail_has_a_boundary_of_its_own(tab: Tab, report: Path) -> None:
    tab.open(report)
    card = tab.page.locator(".card", has_text="cat 1.png")
    box = card.locator(".thumb").bounding_box()
    y = box["y"] + box["height"] / 3
    drag(tab, (box["x"] + box["width"] / 2, y), (box["x"] + 0.2 * box["width"], y))
    assert not tab.page.locator("dialog").is_visible()
    tab.page.mouse.move(0, 0)
    assert boundary(tab.pixels(".card:has-text('cat 1.png') .thumb")) == pytest.approx(
        0.2, abs=0.05
    )
    # It stays where it was left when the card comes back.
    tab.page.fill("#query", "dog")
    tab.page.fill("#query", "")
    assert boundary(tab.pixels(".card:has-text('cat 1.png') .thumb")) == pytest.approx(
        0.2, abs=0.05
    )


# --- zoom, side by side, difference -------------------------------------------------------------


def test_one_to_one_is_a_pixel_for_a_pixel(tab: Tab, phone: Tab, report: Path) -> None:
    for view, ratio in ((tab, 1), (phone, 2)):
        view.open(report)
        view.open_viewer(2)
        view.page.keyboard.press("1")
        box = view.page.locator(".pane img").first.bounding_box()
        assert (box["width"] * ratio, box["height"] * ratio) == (WIDTH, HEIGHT)
        assert view.page.locator("#zoom-level").text_content() == "100 %"
        assert view.page.locator("#zoom-one").get_attribute("aria-pressed") == "true"
        view.page.keyboard.press("0")
        assert view.page.locator("#zoom-fit").get_attribute("aria-pressed") == "true"


def test_both_pictures_move_and_zoom_together(tab: Tab, report: Path) -> None:
    tab.open(report)
    tab.open_viewer(2)
    tab.page.get_by_role("radio", name="Side by side").check()
    stage = tab.pixels("#stage")
    quarter, half = stage.shape[1] // 4, stage.shape[0] // 2
    assert abs(stage[half, quarter].astype(int) - BLACK).max() < 3
    assert abs(stage[half, 3 * quarter].astype(int) - WHITE).max() < 3
    for _ in range(4):
        tab.page.keyboard.press("+")
    before = transforms(tab)
    assert len(set(before)) == 1
    x, y = middle(tab, "#stage")
    drag(tab, (x - 200, y), (x - 260, y - 40))
    after = transforms(tab)
    assert len(set(after)) == 1
    assert after != before
    tab.page.mouse.wheel(0, -300)
    tab.page.locator("#stage").focus()
    tab.page.keyboard.press("ArrowRight")
    assert len(set(transforms(tab))) == 1
    assert transforms(tab) != after


def test_a_zoomed_picture_is_panned_and_its_boundary_still_dragged(tab: Tab, report: Path) -> None:
    tab.open(report)
    tab.open_viewer(2)
    for _ in range(4):
        tab.page.keyboard.press("+")
    slider = tab.page.get_by_role("slider")
    x, y = middle(tab, "#boundary")
    before = transforms(tab)
    drag(tab, (x + 200, y), (x + 150, y))
    assert transforms(tab) != before
    assert slider.get_attribute("aria-valuenow") == "50"
    drag(tab, (x, y), (x + 144, y))
    assert slider.get_attribute("aria-valuenow") == "60"


def test_two_fingers_zoom(phone: Tab, report: Path) -> None:
    phone.open(report)
    phone.open_viewer(2)
    x, y = middle(phone, "#stage")
    width = phone.page.locator(".pane img").first.bounding_box()["width"]
    phone.touch([(x - 40, y - 100), (x - 80, y - 100)], [(x + 40, y - 100), (x + 80, y - 100)])
    assert phone.page.locator(".pane img").first.bounding_box()["width"] == pytest.approx(
        2 * width, rel=0.05
    )


def test_the_difference_is_that_of_the_pixels(tab: Tab, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.png", flat(100))
    write(tmp_path / "out" / "a.png", flat(110))
    write_report(tmp_path / "out", input_dir=tmp_path / "in", limit=0)
    tab.open(tmp_path / "out" / "report.html")
    tab.open_viewer()
    tab.page.get_by_role("radio", name="Difference").check()
    tab.settle()
    for gain, expected in ((8, 80), (1, 10), (32, 255)):
        tab.page.select_option("#gain", str(gain))
        stage = tab.pixels("#stage")
        found = stage[stage.shape[0] // 2, stage.shape[1] // 2]
        assert found.astype(int) == pytest.approx(np.full(3, expected), abs=4)
    # The full-size pictures were files beside the page.
    assert any(url.endswith("/in/a.png") for url in tab.requests)


def test_the_target_can_be_compared_as_well(tab: Tab, report: Path) -> None:
    tab.open(report)
    tab.open_viewer(2)
    tab.page.select_option("#pair", label="Target and after")
    tab.settle()
    stage = tab.pixels("#stage")
    half = stage.shape[0] // 2
    first = tab.page.locator("#viewer-name").text_content()
    target = WHITE + 2 * int(first.split()[1].removesuffix(".png"))
    left = tab.page.locator("#stage img").first.bounding_box()["x"]
    assert abs(int(stage[half, round(left) + 60].mean()) - target) < 3
    # The next image keeps what was chosen.
    tab.page.keyboard.press("n")
    assert tab.page.locator("#viewer-name").text_content() != first
    assert tab.page.locator("#pair").input_value() == "target result"


def test_a_picture_that_is_gone_leaves_its_thumbnail_and_a_word(tab: Tab, tmp_path: Path) -> None:
    write(tmp_path / "out" / "a.png", flat(WHITE))
    write(tmp_path / "in" / "a.png", flat(BLACK))
    html = write_report(tmp_path / "out", input_dir=tmp_path / "in", limit=0).html
    (tmp_path / "in" / "a.png").unlink()
    tab.open(html)
    tab.open_viewer()
    tab.page.wait_for_selector("#stage-note:not([hidden])")
    assert "not where this report expects it" in tab.page.locator("#stage-note").text_content()
    assert boundary(tab.pixels("#stage")) == pytest.approx(0.5, abs=0.03)
    tab.messages = [m for m in tab.messages if "ERR_FILE_NOT_FOUND" not in m]


# --- the grid -----------------------------------------------------------------------------------


def test_the_filter_filters(tab: Tab, report: Path) -> None:
    tab.open(report)
    assert len(tab.names()) == 14
    tab.page.fill("#query", "CAT 1")
    assert tab.names() == ["cat 1.png", "cat 11.png"]
    assert tab.page.locator("#count").text_content() == "2 of 14 images"
    tab.page.fill("#query", "nothing of the kind")
    assert tab.names() == []
    assert tab.page.locator("#empty").is_visible()
    tab.page.get_by_role("button", name="Show all").click()
    assert len(tab.names()) == 14
    tab.page.get_by_role("radio", name="Failed").check()
    assert tab.names() == ["bird 1.png", "bird 2.png"]
    tab.page.get_by_role("radio", name="All").check()
    # Of n·2 levels the PSNR is 42.11 - 20 log10 n: 30 dB lie between 4 and 5.
    tab.page.fill("#least", "30")
    assert tab.names() == ["cat 1.png", "cat 3.png", "dog 2.png", "dog 4.png"]
    tab.page.fill("#most", "35")
    assert tab.names() == ["cat 3.png", "dog 4.png"]


def test_the_grid_sorts(tab: Tab, report: Path) -> None:
    tab.open(report)
    natural = ["bird 1.png", "bird 2.png"]
    natural += [f"cat {n}.png" for n in range(1, 13, 2)] + [f"dog {n}.png" for n in range(2, 13, 2)]
    assert tab.names() == natural
    by_psnr = [f"{'cat' if n % 2 else 'dog'} {n}.png" for n in range(12, 0, -1)]
    tab.page.select_option("#sort", "psnr")
    assert tab.names() == by_psnr + natural[:2]
    tab.page.click("#direction")
    assert tab.names() == by_psnr[::-1] + natural[:2]
    assert tab.page.locator("#direction").get_attribute("aria-pressed") == "true"
    tab.page.select_option("#sort", "status")
    assert tab.names()[:2] == natural[:2]


def test_failures_are_listed_with_their_reason(tab: Tab, report: Path) -> None:
    tab.open(report)
    section = tab.page.locator("#failures")
    assert section.locator("summary").text_content() == "2 images failed"
    assert section.locator("li").all_text_contents() == [
        "bird 1.pngis damaged",
        "bird 2.pngis damaged",
    ]
    figures = dict(
        zip(
            tab.page.locator("#figures dt").all_text_contents(),
            tab.page.locator("#figures dd").all_text_contents(),
            strict=True,
        )
    )
    assert (figures["images"], figures["failed"]) == ("14", "2")
    assert "mean PSNR, rgb" in figures
    assert "restormer-cli" in tab.page.locator("#colophon").text_content()


def test_everything_can_be_reached_by_keys(tab: Tab, report: Path) -> None:
    tab.open(report)
    focused = "document.activeElement.getAttribute('aria-label') || document.activeElement.id"
    tab.page.keyboard.press("/")
    assert tab.page.evaluate(focused) == "query"
    tab.page.locator(".card .thumb").first.focus()
    for key, name in (
        ("ArrowRight", "bird 2.png"),
        ("End", "dog 12.png"),
        ("ArrowLeft", "dog 10.png"),
        ("Home", "bird 1.png"),
        ("ArrowDown", "cat 5.png"),
    ):
        tab.page.keyboard.press(key)
        assert tab.page.evaluate(focused).startswith(name)
    tab.page.keyboard.press("Enter")
    assert tab.page.locator("#viewer-name").text_content() == "cat 5.png"
    for key, mode in (("b", "both"), ("d", "difference"), ("s", "slider")):
        tab.page.keyboard.press(key)
        assert tab.page.locator("#stage").get_attribute("data-mode") == mode
    tab.page.keyboard.press("p")
    assert tab.page.locator("#viewer-name").text_content() == "cat 3.png"
    tab.page.keyboard.press("Escape")
    assert not tab.page.locator("dialog").is_visible()
    tab.wait_until(lambda: tab.page.evaluate(focused).startswith("cat 3.png"))
    # Tab leaves the grid at once, however many images it has.
    tab.page.keyboard.press("Shift+Tab")
    assert tab.page.evaluate(focused) == "Descending"


def test_light_and_dark_follow_the_system_and_a_button(browser: Any, report: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    found = {}
    for scheme in ("light", "dark"):
        with new_tab(browser, color_scheme=scheme) as tab:
            tab.open(report)
            found[scheme] = tab.page.evaluate(paper)
            for name in ("light", "dark"):
                tab.page.click("#theme")
                found[scheme, name] = tab.page.evaluate(paper)
    assert found["light"] == found["light", "light"] == found["dark", "light"]
    assert found["dark"] == found["light", "dark"] == found["dark", "dark"]
    assert found["light"] != found["dark"]


@pytest.mark.parametrize("kind", ["desktop", "phone"])
def test_nothing_is_wider_than_the_screen(
    browser: Any, report: Path, tmp_path: Path, kind: str
) -> None:
    with new_tab(browser, **(PHONE if kind == "phone" else {})) as tab:
        tab.open(report)
        widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        for step in ("grid", "viewer"):
            if step == "viewer":
                tab.open_viewer(2)
            scrolled, seen = tab.page.evaluate(widths)
            assert scrolled == seen
            tab.page.screenshot(path=tmp_path / f"{kind}-{step}.png")
            assert (tmp_path / f"{kind}-{step}.png").stat().st_size > 5000
        columns = {card.bounding_box()["x"] for card in tab.page.locator(".card").all()}
        assert len(columns) == (2 if kind == "phone" else 4)
        stage = tab.page.locator("#stage").bounding_box()
        tools = tab.page.locator(".viewer-tools").bounding_box()
        assert stage["width"] == tab.page.viewport_size["width"]
        assert stage["height"] > 400
        assert tools["y"] + tools["height"] <= tab.page.viewport_size["height"]


# --- hostile names, and many of them ------------------------------------------------------------

HOSTILE = (
    "<img src=x onerror=alert(1)>.png",
    '"><svg onload=alert(2)>.png',
    "<!--<script>alert(3).png",
    "{{data}} %22 ' ` $& \\u003c.png",
)


def test_names_are_only_ever_text(tab: Tab, tmp_path: Path) -> None:
    out = tmp_path / "<i>out&amp;"
    try:
        for name in HOSTILE:
            write(out / "x<" / name, smooth_pixels(16, 16))
        write(out / "a<" / "script><script>alert(4)<" / "script>.png", smooth_pixels(16, 16))
    except OSError:
        pytest.skip("this file system does not take such names")
    evil = "</script><script>alert(5)</script><b onmouseover=alert(6)>"
    line = {"input": evil, "result": "", "status": "failed", "error": evil, "weights": evil}
    line |= {"seconds": 1, "width": 1, "height": 1}
    (out / "run.jsonl").write_text(json.dumps(line), encoding="utf-8")
    write_report(out, recursive=True, limit=100)
    tab.open(out / "report.html")
    shown = [f"x</{name}" for name in HOSTILE] + ["a</script><script>alert(4)</script>.png"]
    assert set(shown) < set(tab.names())
    assert tab.page.locator("h1").text_content() == "<i>out&amp;"
    assert evil in tab.page.locator("#failures").text_content()
    assert evil in tab.page.locator("#colophon").text_content()
    assert tab.page.locator("main i, main svg, main b b, script:not([type])").count() == 1
    for index, name in enumerate(tab.names()):
        if name in shown:
            tab.open_viewer(index)
            assert tab.page.locator("#viewer-name").text_content() == name
            assert tab.page.locator("#stage-note").is_hidden()
            tab.page.keyboard.press("Escape")
    # Were one to become markup all the same, the page's policy would not run it.
    with tab.page.expect_console_message(lambda m: "Content Security Policy" in m.text):
        tab.page.evaluate(
            "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=alert(7)>')"
        )
    blocked = [message for message in tab.messages if "Content Security Policy" in message]
    tab.messages = [m for m in tab.messages if m not in blocked and "ERR_FILE_NOT_FOUND" not in m]


def test_five_thousand_images_open_at_once(tab: Tab, tmp_path: Path) -> None:
    small, clean = (write(tmp_path / f"{n}.png", smooth_pixels(n, 36)) for n in (24, 25))
    for folder, file in (("in", clean), ("out", small)):
        (tmp_path / folder).mkdir()
        for number in range(1, 5001):
            (tmp_path / folder / f"photo {number}.png").hardlink_to(file)
    written = write_report(tmp_path / "out", input_dir=tmp_path / "in")
    assert written.images == 5000
    tab.open(written.html)
    assert tab.page.locator("#count").text_content() == "5,000 images"
    assert tab.page.locator(".card").count() < 100
    tab.page.keyboard.press("End")
    tab.page.locator(".card .thumb").first.focus()
    tab.page.keyboard.press("End")
    assert tab.names()[-1] == "photo 5000.png"
    assert tab.page.locator(".card").last.is_visible()
    assert tab.page.locator(".card").count() < 100
    tab.page.fill("#query", "photo 499")
    assert tab.names() == ["photo 499.png", *(f"photo {n}.png" for n in range(4990, 5000))]
    tab.page.fill("#query", "")
    tab.page.click("#direction")
    assert tab.names()[0] == "photo 5000.png"
