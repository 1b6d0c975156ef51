"""Page at `/` in a real browser, on a real server: files, microphone, keyboard, screen reader, themes."""

import json
import re
import shutil
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
import soxr
from fastapi import FastAPI
from fastapi.testclient import TestClient
from servers import server

from tritone.engine.server.page import FOLDER, TYPES, page_files, page_routes

playwright = pytest.importorskip("playwright.sync_api", reason="drives the page with playwright")
axe_playwright = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="checks it with axe-core"
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the path")
expect = playwright.expect
PATIENCE = 20  # seconds, for a machine that does other things too
expect.set_options(timeout=1000 * PATIENCE)

KEY = "open-sesame"
ROOT = Path(__file__).parents[3]
SAMPLES = ROOT / "samples"
GARDEN = SAMPLES / "english/garden_44k.mp3"
LONG = SAMPLES / "english/three_minutes.m4a"
DIGITS = SAMPLES / "digits/six_digits_16k.flac"
SPOKEN = SAMPLES / "digits/three_digits_22k.flac"
TEXTS = {
    path.name: text
    for folder in ("digits", "english")
    for path, text in (
        (SAMPLES / folder / name, text)
        for name, text in json.loads((SAMPLES / folder / "transcripts.json").read_text()).items()
    )
}


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Address of a server process with two models."""
    with server("--model", "english") as process:
        yield f"{process.address}/"


@pytest.fixture(scope="module")
def closed_site() -> Iterator[str]:
    """Address of a server that asks for a key, even for its numbers."""
    with server("--protect-health", environment={"TRITONE_API_KEY": KEY}) as process:
        yield f"{process.address}/"


@pytest.fixture(scope="module")
def voice(tmp_path_factory) -> Path:
    """Spoken digits with silence around them, in the format that a browser's fake microphone reads."""
    samples, rate = soundfile.read(SPOKEN)
    quiet = np.zeros(rate // 2)
    path = tmp_path_factory.mktemp("voice") / "voice.wav"
    voice = soxr.resample(np.concatenate([quiet, samples, quiet]), rate, 48_000)
    soundfile.write(path, voice, 48_000, "PCM_16")
    return path


@pytest.fixture(scope="module")
def browser(voice) -> Iterator:
    """Headless Chromium whose microphone says `voice` once."""
    flags = [
        "--no-sandbox",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={voice}%noloop",
    ]
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Function that opens a server's page in a window of its own.

    After each test the page must have asked nothing of other hosts, and have logged no error but the failed
    requests that the test expects.
    """
    windows = []

    def open_page(site: str, failures: str = "none", **options):
        context = browser.new_context(**({"color_scheme": "light"} | options))
        page = context.new_page()
        requests, problems = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: message.type == "error" and problems.append(message.text))
        page.on("filechooser", lambda chooser: None)  # before any key opens one, or Chromium opens its own
        page.goto(site)
        windows.append((context, site, failures, requests, problems))
        return page

    yield open_page
    for context, site, failures, requests, problems in windows:
        context.close()
        assert [url for url in requests if not url.startswith((site, f"blob:{site}"))] == []
        assert [text for text in problems if not re.search(failures, text)] == []


def add(page, *paths: Path, model: str = "digits") -> None:
    """Choose a model, and files with the button, as a user does."""
    if model != "digits":
        page.get_by_label("Model").select_option(model)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose files").click()
    chooser.value.set_files(paths)


def row(page, name: str):
    """Row of a file."""
    return page.get_by_role("listitem").filter(has=page.get_by_role("button", name=name, exact=True))


def violations(page) -> list[str]:
    """Findings of axe-core."""
    response = axe_playwright.Axe().run(page).response
    return [f"{found['id']}: {node['html']}" for found in response["violations"] for node in found["nodes"]]


def until(page, script: str) -> None:
    """Wait for a script to be true; the page's policy forbids playwright's own way."""
    end = time.monotonic() + PATIENCE
    while not page.evaluate(script):
        assert time.monotonic() < end, f"not true after {PATIENCE} s: {script}"
        page.wait_for_timeout(25)


def shown(page, *selectors: str) -> None:
    """Wait for elements, more closely than `expect` looks."""
    for selector in selectors:
        until(page, f"document.querySelector('{selector}')?.checkVisibility()")


def pressed_download(page, name: str) -> str:
    """Text of the file that a button downloads."""
    with page.expect_download() as download:
        page.get_by_role("button", name=name).click()
    return Path(download.value.path()).read_text()


def formatted(site: str, path: Path, response_format: str) -> str:
    """Answer of the server to another client."""
    form = {"model": "digits", "response_format": response_format}
    with path.open("rb") as file:
        answer = httpx.post(f"{site}v1/audio/transcriptions", data=form, files={"file": file})
    return answer.raise_for_status().text


def test_each_file_has_its_type_and_the_policy_and_is_sent_once():
    app = FastAPI()
    app.include_router(page_routes())
    client = TestClient(app)
    for path in page_files():
        url = "/" if path.name == "index.html" else f"/page/{path.name}"
        answer = client.get(url)
        assert (answer.status_code, answer.content) == (200, path.read_bytes())
        assert answer.headers["content-type"] == TYPES[path.suffix]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        again = client.get(url, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.head(url).status_code == 200
    assert client.get("/page/__init__.py").status_code == 404
    assert client.get("/page/..%2fapp.py").status_code == 404
    assert app.openapi()["paths"] == {}


def test_the_package_takes_every_file_of_the_page_along():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    taken = {path for pattern in data["tritone.engine.server.page"] for path in FOLDER.glob(pattern)}
    assert taken == set(page_files())
    left = {path.name for path in FOLDER.iterdir()} - {path.name for path in taken} - {"__pycache__"}
    assert left == {"__init__.py"}


def test_the_page_names_no_other_host_and_has_no_inline_script():
    for path in page_files():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"^\s*// .*$|(?<=[;,{]) // .*$", "", text, flags=re.M), path
        assert not re.search(r"\son[a-z]+=|\sstyle=|<script>|<style", text), path


@in_browser
def test_text_appears_as_it_is_decoded_and_words_follow_the_player(visit, site):
    page = visit(site)
    page.evaluate(
        """() => {
          [window.seen, window.lit] = [new Set(), new Set()];
          const options = { childList: true, characterData: true, attributes: true, subtree: true };
          const look = () => {
            window.seen.add(document.querySelector(".transcript")?.textContent ?? "");
            window.lit.add(document.querySelector(".now")?.textContent);
          };
          new MutationObserver(look).observe(document.querySelector("#recordings"), options);
        }"""
    )
    add(page, GARDEN, model="english")
    shown(page, ".transcript span", ".slider")
    transcript = page.locator(".transcript")
    expect(transcript).to_have_text(TEXTS[GARDEN.name])
    seen = sorted(page.evaluate("[...window.seen]"), key=len)
    assert len(seen) > 5
    assert all(TEXTS[GARDEN.name].startswith(text) for text in seen)

    words = transcript.locator("span")
    expect(words).to_have_count(len(TEXTS[GARDEN.name].split()))
    slider = page.get_by_role("slider", name="Position")
    words.nth(8).click()
    expect(words.nth(8)).to_have_class("now")
    expect(slider).to_have_attribute("aria-valuetext", re.compile(r"^0:0\d of 0:06, spring$"))
    page.get_by_role("button", name="Play").click()
    until(page, "window.lit.size > 3")
    lit = page.evaluate("[...window.lit].filter(Boolean)")
    assert lit[0] == "spring"
    assert set(lit) <= set(TEXTS[GARDEN.name].split()[8:])
    page.get_by_role("button", name="Pause").click()
    slider.press("Home")
    slider.press("ArrowRight")
    expect(words.nth(1)).to_have_class("now")
    slider.press("ArrowLeft")
    expect(words.nth(0)).to_have_class("now")


@in_browser
def test_dropped_files_are_sent_together_and_each_is_opened_by_itself(visit, site):
    page = visit(site)
    order = []
    page.on("request", lambda request: request.method == "POST" and order.append("sent"))
    page.on("response", lambda response: response.request.method == "POST" and order.append("answered"))
    names = ["six_digits_16k.flac", "two_digits_16k.wav"]
    contents = [list((SAMPLES / "digits" / name).read_bytes()) for name in names]
    page.evaluate(
        """([names, contents]) => {
          const dataTransfer = new DataTransfer();
          names.forEach((name, i) => dataTransfer.items.add(new File([new Uint8Array(contents[i])], name)));
          const options = { dataTransfer, bubbles: true, cancelable: true };
          for (const type of ["dragover", "drop"]) document.body.dispatchEvent(new DragEvent(type, options));
        }""",
        [names, contents],
    )
    until(page, "document.querySelectorAll('[data-state=done]').length === 2")
    assert order == ["sent", "sent", "answered", "answered"]
    for name in names:
        expect(row(page, name)).to_have_attribute("data-state", "done")
        expect(row(page, name).locator(".preview")).to_have_text(TEXTS[name])
    expect(page.get_by_role("status")).to_have_text("2 of 2 recordings done")
    expect(page.get_by_role("slider")).to_have_count(0)
    page.get_by_role("button", name=names[1], exact=True).click()
    expect(row(page, names[1]).locator(".transcript")).to_have_text(TEXTS[names[1]])
    expect(page.get_by_role("slider")).to_have_count(1)


@in_browser
def test_the_microphone_is_recorded_and_transcribed(visit, site):
    page = visit(site, permissions=["microphone"])
    page.get_by_role("button", name="Record").click()
    stop = page.get_by_role("button", name="Stop")
    expect(stop).to_be_visible()
    page.wait_for_timeout(1000 * soundfile.info(SPOKEN).duration + 1000)
    stop.click()
    shown(page, ".downloads", ".spectrogram.drawn")
    expect(page.locator(".name")).to_have_text(re.compile(r"^Recording .*\.webm$"))
    expect(page.locator(".transcript")).to_have_text(TEXTS[SPOKEN.name])
    expect(page.get_by_role("slider", name="Position")).to_have_attribute(
        "aria-valuemax", re.compile(r"^[2-5]\.")
    )


@in_browser
def test_a_denied_microphone_is_said_plainly(visit, site):
    page = visit(site)
    page.get_by_role("button", name="Record").click()
    expect(page.get_by_role("alert").first).to_have_text(
        re.compile("^The browser denied the microphone. Allow it")
    )
    expect(page.get_by_role("button", name="Record")).to_be_visible()


@in_browser
def test_the_keyboard_alone_leads_from_a_file_to_its_subtitles(visit, site):
    page = visit(site)
    focused = """() => {
      const { ariaLabel, labels, textContent } = document.activeElement;
      return ariaLabel || labels?.[0]?.textContent || textContent;
    }"""

    def tab_to(name: str) -> None:
        for _ in range(12):
            page.keyboard.press("Tab")
            if page.evaluate(focused).startswith(name):
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
                return
        raise AssertionError(f"no way to {name}")

    expect(page.get_by_label("Model")).to_be_enabled()
    tab_to("Model")
    page.keyboard.press("e")
    expect(page.get_by_label("Model")).to_have_value("english")
    page.keyboard.press("ArrowUp")
    tab_to("Choose files")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(DIGITS)
    shown(page, ".transcript span", ".slider")
    tab_to("Position")
    page.keyboard.press("End")
    assert float(page.get_by_role("slider").get_attribute("aria-valuenow")) > 2
    page.keyboard.press("Home")
    assert page.get_by_role("slider").get_attribute("aria-valuenow") == "0.00"
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    tab_to("SRT")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "six_digits_16k.srt"
    assert Path(download.value.path()).read_text() == formatted(site, DIGITS, "srt")


@in_browser
def test_downloads_are_the_servers_own_formats(visit, site):
    page = visit(site)
    add(page, DIGITS)
    shown(page, ".transcript span", ".downloads")
    expect(page.locator(".transcript span")).to_have_text(
        TEXTS[DIGITS.name]
    )  # without times of words, all at once
    assert pressed_download(page, "VTT") == formatted(site, DIGITS, "vtt")
    assert pressed_download(page, "TXT") == formatted(site, DIGITS, "text")
    assert json.loads(pressed_download(page, "JSON")) == json.loads(formatted(site, DIGITS, "verbose_json"))


@in_browser
def test_escape_cancels_the_request_on_the_server_too(visit, site):
    page = visit(site)
    add(page, LONG, model="english")
    until(page, "document.querySelector('.transcript').textContent")
    expect(page.locator(".transcript")).to_contain_text("lighthouse")
    expect(page.locator("[data-number=running]")).to_have_text("1")
    page.keyboard.press("Escape")
    expect(row(page, LONG.name)).to_have_attribute("data-state", "cancelled")
    expect(page.locator("[data-number=running]")).to_have_text("0")
    expect(page.get_by_role("button", name=f"Try again: {LONG.name}")).to_be_visible()
    page.get_by_role("button", name=f"Remove {LONG.name}").click()
    expect(page.get_by_role("listitem")).to_have_count(0)
    expect(page.get_by_role("button", name="Choose files")).to_be_focused()


@in_browser
def test_a_file_that_cannot_be_read_shows_the_servers_message(visit, site, tmp_path):
    page = visit(site, failures="status of 400")
    notes = tmp_path / "notes.wav"
    notes.write_text("no audio")
    add(page, notes)
    shown(page, "[data-state=failed]")
    expect(row(page, notes.name).get_by_role("alert")).to_contain_text("not audio")
    expect(row(page, notes.name).get_by_role("button", name="SRT")).to_have_count(0)


@in_browser
def test_a_server_that_is_away_is_said_plainly(visit, site):
    page = visit(site, failures="ERR_FAILED")
    expect(page.get_by_label("Model")).to_be_enabled()
    page.route("**/v1/audio/transcriptions", lambda route: route.abort())
    add(page, DIGITS)
    expect(row(page, DIGITS.name).get_by_role("alert")).to_contain_text("The server does not answer")


@in_browser
def test_a_closed_server_asks_for_a_key_and_keeps_it_in_the_tab(visit, closed_site):
    page = visit(closed_site, failures="status of 401")
    running = page.locator("[data-number=running]")
    dialog = page.get_by_role("dialog", name="This server asks for a key")
    expect(running).to_be_hidden()
    dialog.get_by_label("API key").fill("wrong")
    dialog.get_by_role("button", name="Use key").click()
    expect(dialog.get_by_label("API key")).to_have_value("")
    dialog.get_by_label("API key").fill(KEY)
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    add(page, DIGITS)
    expect(page.locator(".transcript")).to_have_text(TEXTS[DIGITS.name])
    assert page.evaluate("localStorage.length") == 0
    expect(running).to_have_text("0")
    page.reload()
    expect(page.locator("#model option")).to_have_count(1)
    expect(dialog).to_be_hidden()


@in_browser
def test_axe_finds_nothing(visit, site, tmp_path):
    page = visit(site, failures="status of 400")
    expect(page.locator("[data-number=health]")).to_have_text("ok")
    assert violations(page) == []
    notes = tmp_path / "notes.wav"
    notes.write_text("no audio")
    add(page, notes)
    shown(page, "[data-state=failed]")
    add(page, DIGITS)
    shown(page, ".transcript span", ".spectrogram.drawn")
    page.locator(".transcript span").click()
    expect(page.locator(".now")).to_be_visible()
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        assert violations(page) == []


@in_browser
def test_a_spectrogram_shows_the_pitch_and_the_theme(visit, site, tmp_path):
    rate = 16_000
    seconds = np.arange(rate) / rate
    tone = np.concatenate([0.5 * np.sin(2 * np.pi * 1000 * seconds), np.zeros(rate)])
    soundfile.write(tmp_path / "tone.wav", tone, rate)
    page = visit(site)
    add(page, tmp_path / "tone.wav")
    canvas = page.locator(".spectrogram")
    shown(page, ".spectrogram.drawn")
    expect(canvas).to_have_accessible_name(re.compile("sound from 0.0 to 1.0 seconds, .* 50 percent quiet"))
    light = pixels(canvas)
    height, width = light.shape
    column = light[:, width // 4]
    mel = [np.log1p(hertz / 700) for hertz in (50, 1000, 8000)]
    there = height * (1 - (mel[1] - mel[0]) / (mel[2] - mel[0]))
    assert abs(int(column.argmin()) - there) < 2
    assert np.ptp(light[:, 3 * width // 4]) == 0  # silence
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(100)
    dark = pixels(canvas)
    assert int(dark[:, width // 4].argmax()) == int(column.argmin())
    assert dark[0, 3 * width // 4] < 100 < light[0, 3 * width // 4]


def pixels(canvas) -> np.ndarray:
    """Green of a canvas, [height, width]."""
    width, height, values = canvas.evaluate(
        """(canvas) => {
          const { width, height } = canvas;
          const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
          return [width, height, Array.from(data.filter((_, i) => i % 4 === 1))];
        }"""
    )
    return np.asarray(values, np.int64).reshape(height, width)


@in_browser
def test_nothing_is_wider_than_a_phone(visit, site):
    page = visit(site, viewport={"width": 360, "height": 640}, reduced_motion="reduce")
    add(page, DIGITS)
    shown(page, ".downloads", ".slider")
    for width in (360, 320):
        page.set_viewport_size({"width": width, "height": 640})
        assert page.evaluate("document.documentElement.scrollWidth") == width
