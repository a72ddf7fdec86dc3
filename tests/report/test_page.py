"""The report in a real browser, headless Chromium, where there is one: all letters drawn, nothing too wide, no error."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# The page in a frame of a width of its own, since a window has a least width; what the frame says goes into the title.
FRAME = """<!doctype html><meta charset="utf-8"><title>not loaded</title>
<iframe style="width:{width}px;height:900px;border:0" srcdoc="{page}"></iframe>
<script>
const frame = document.querySelector("iframe");
// A letter without a glyph is drawn as one is that no font has, of those for private use.
const boxes = (page) => {{
  const canvas = page.createElement("canvas");
  canvas.width = canvas.height = 40;
  const pen = canvas.getContext("2d", {{willReadFrequently: true}});
  const drawn = (font, letter) => {{
    pen.clearRect(0, 0, 40, 40);
    pen.font = font;
    pen.fillText(letter, 4, 30);
    return pen.getImageData(0, 0, 40, 40).data.join();
  }};
  const found = new Set(), seen = new Set();
  const place = page.createRange();
  for (const each of page.body.querySelectorAll("*")) {{
    const style = frame.contentWindow.getComputedStyle(each);
    const font = (size) => `${{style.fontWeight}} ${{size}} ${{style.fontFamily}}`;
    for (const node of [...each.childNodes].filter((node) => node.nodeType === 3)) {{
      [...node.data].forEach((letter, at) => {{
        if (letter < "\u0250" || seen.has(each.tagName + font("") + letter)) return;
        seen.add(each.tagName + font("") + letter);
        // The page itself may have been laid out before its fonts came: then a letter has another width there.
        place.setStart(node, at), place.setEnd(node, at + 1);
        const width = place.getBoundingClientRect().width;
        pen.font = font(style.fontSize);
        const other = width > 0 && Math.abs(width - pen.measureText(letter).width) > 0.5;
        if (other || drawn(font("24px"), letter) === drawn(font("24px"), "\ue321")) found.add(each.tagName + " " + letter);
      }});
    }}
  }}
  return [...found];
}};
frame.onload = () => setTimeout(() => {{
  const page = frame.contentDocument;
  const wide = [...page.body.querySelectorAll("*")].filter((each) => each.getBoundingClientRect().right > {width} + 1);
  document.title = JSON.stringify({{
    width: page.documentElement.scrollWidth,
    wide: wide.map((each) => each.tagName + " " + each.textContent.slice(0, 40)),
    pictures: [...page.images].every((each) => each.complete && each.naturalWidth > 0),
    fonts: [...page.fonts].map((each) => each.status),
    boxes: boxes(page),
  }});
}}, 300);
</script>
"""


def opened(directory, page: str, width: int) -> tuple[dict, str]:
    """What the browser says of the page at a width, and what it logged."""
    file = directory / f"frame{width}.html"
    file.write_text(FRAME.format(width=width, page=html.escape(page)), encoding="utf-8")
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={directory / 'profile'}",
        "--enable-logging=stderr", "--virtual-time-budget=10000", "--window-size=1400,1000", "--dump-dom", file.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    (title,) = re.findall(r"<title>(.*?)</title>", done.stdout)
    return json.loads(html.unescape(title)), done.stderr


@pytest.fixture(scope="module")
def page(complete) -> str:
    """The page with a long path and a long word, as reports of real runs have."""
    if BROWSER is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    text = (complete / "report" / "report.html").read_text(encoding="utf-8")
    return text.replace("upstage/SOLAR-10.7B-v1.0", "outputs/" + 20 * "a-long-name/", 1)


@pytest.mark.parametrize("width", [390, 1280])
def test_all_letters_are_drawn_nothing_overflows_and_the_console_is_empty(tmp_path, page, width):
    said, log = opened(tmp_path, page, width)
    assert said["width"] <= width and not said["wide"]
    assert said["pictures"] and said["fonts"]
    assert "error" not in said["fonts"]
    assert not said["boxes"]
    assert "CONSOLE" not in log


def test_what_overflows_is_seen(tmp_path, page):
    """The test itself: something too wide, an error, and a letter that no font has are told."""
    wide = '<div style="width:700px">x</div><script>throw Error("x")</script><b>a&#xf8f0;</b></body>'
    said, log = opened(tmp_path, page.replace("</body>", wide), 390)
    assert said["width"] > 390 and said["wide"]
    assert said["boxes"] == ["B \uf8f0"]
    assert "CONSOLE" in log
