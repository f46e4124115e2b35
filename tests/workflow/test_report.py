"""The HTML report in a browser: what a reader gets to see by clicking through it."""

import json
import os
import queue
import shutil
import signal
import struct
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Nothing but the page: no first-run pages, no look-ups, no updates.
OPTIONS = [
    *("--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-quic", "--no-sandbox"),
    "--window-size=1400,900",
]

# Before anything else in the page: whatever goes wrong is noted.
WATCH = """<script>
const problems = [];
addEventListener("error", (event) => problems.push(event.message || event.target.outerHTML), true);
addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
const consoleError = console.error;
console.error = (...what) => { problems.push(what.join(" ")); consoleError(...what); };
</script>"""

# A reader who opens every category, sets every filter and looks at every result, and posts what was
# seen to the server that the page came from.
READ = """<script>
(async () => {
  const seen = {categories: {}};
  const all = (selector) => [...document.querySelectorAll(selector)];
  const until = async (what) => {
    for (let i = 0; i < 1500; i++) {
      const value = what();
      if (value) return value;
      await new Promise((done) => setTimeout(done, 20));
    }
    throw new Error(`not seen within 30 seconds: ${what}`);
  };
  const link = (where, text) => () => all(where).find((a) => a.textContent.trim() === text);
  const open = async (name) => {
    (await until(link("nav ul a", name))).click();
    await until(() => document.querySelector("nav tbody tr"));
  };
  try {
    seen.workflow = (await until(() => document.querySelector("#app .prose"))).textContent;
    (await until(link("nav ul a", "Statistics"))).click();
    seen.charts = await until(() => all("#app .marks").length);
    for (const name of Object.keys(categories)) {
      await open(name);
      const category = seen.categories[name] = {columns: [], filters: {}, results: []};
      category.columns = all("nav thead th").map((th) => th.textContent).filter((text) => text);
      for (const filter of all("nav fieldset"))
        category.filters[filter.querySelector("span").textContent] =
          [...filter.querySelectorAll("input")].map((input) => input.value);
      const sides = all("nav fieldset input").map((input) => input.id);
      for (const side of sides.length ? sides : [null]) {
        for (let i = 0; i < all("nav tbody tr").length; i++) {
          if (side) {
            document.getElementById(side).click();
            await until(() => document.getElementById(side).checked);
          }
          const [view, info] = all("nav tbody tr")[i].querySelectorAll("a");
          const result = {};
          if (view.hasAttribute("download")) {
            result.file = view.getAttribute("download");
            result.text = await (await fetch(view.href)).text();
          } else {
            const before = app.state.renderTrigger;
            view.click();
            await until(() => app.state.renderTrigger !== before);
            result.path = app.state.resultPath;
            const {data_uri, mime_type} = results[result.path];
            const found = (tag) => all(`#app ${tag}`).find((element) => element.src === data_uri);
            if (mime_type === "text/html") {
              result.shown = (await until(() => found("iframe"))).getBoundingClientRect().width;
              result.page = await (await fetch(data_uri)).text();
            } else {
              const image = await until(() => found("img"));
              await image.decode();
              result.size = [image.naturalWidth, image.naturalHeight];
              result.shown = image.getBoundingClientRect().width;
            }
          }
          info.click();
          result.caption = (await until(() => document.querySelector("nav .prose"))).textContent;
          category.results.push(result);
          (await until(link("nav nav a", name))).click();
          await until(() => document.querySelector("nav tbody tr a"));
        }
      }
      (await until(link("nav nav a", "Results"))).click();
    }
  } catch (error) { problems.push(error.stack); }
  await fetch("/seen", {method: "POST", body: JSON.stringify({...seen, problems})});
})();
</script>"""


def browser():
    """Chromium's path; without one, what needs it is skipped, unless CI has installed one."""
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    reason = "no Chromium or Chrome to open the report in (Debian: apt-get install chromium)"
    if os.environ.get("BROWSER_EXPECTED"):
        pytest.fail(reason)
    pytest.skip(reason)


def read(executable, text, profile):
    """Open a page in the browser and return what it posts."""
    posted = queue.Queue()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/" else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(text.encode() if self.path == "/" else b"")

        def do_POST(self):
            posted.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        command = [executable, *OPTIONS, f"--user-data-dir={profile}", address]
        opened = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            return posted.get(timeout=300)
        except queue.Empty:
            pytest.fail("the page did not say within 5 minutes what was seen in it")
        finally:
            os.killpg(opened.pid, signal.SIGKILL)
            opened.wait()
            server.shutdown()


@pytest.fixture(scope="module")
def page(demo):
    """The report's text, made without a job being run."""
    demo.snakemake("--report", "report.html")
    path = demo.path / "report.html"
    assert path.stat().st_size < 10e6  # 3 MB of it are Snakemake's own page and libraries
    text = path.read_text()
    path.unlink()
    return text


@pytest.fixture(scope="module")
def seen(page, tmp_path_factory):
    """What a reader saw in the report."""
    executable = browser()
    before, after = page.rsplit("</body>", 1)
    before = before.replace("<head>", f"<head>{WATCH}", 1)
    return read(executable, f"{before}{READ}</body>{after}", tmp_path_factory.mktemp("profile"))


def results(seen):
    return [result for category in seen["categories"].values() for result in category["results"]]


def png_size(path):
    """Width and height, from the first chunk."""
    return list(struct.unpack(">II", path.read_bytes()[16:24]))


def test_nothing_goes_wrong_in_the_page(seen):
    assert seen["problems"] == []


def test_every_figure_is_seen_once_and_whole(seen, demo):
    figures = {
        f"reports/everything/figures/{path.name}": png_size(path)
        for path in (demo.path / "reports/everything/figures").glob("*.png")
    }
    shown = [result for result in results(seen) if "size" in result]
    assert sorted(result["path"] for result in shown) == sorted(figures)
    assert {result["path"]: result["size"] for result in shown} == figures
    assert all(result["shown"] > 300 for result in shown)


def test_every_table_can_be_had(seen, demo):
    files = {result["file"]: result["text"] for result in results(seen) if "file" in result}
    assert {"summary.csv", "cells.csv", "robustness.csv", "comparison.csv"} <= files.keys()
    for name, text in files.items():
        assert text == (demo.path / f"reports/everything/tables/{name}").read_text()


def test_the_notebook_is_a_page_in_the_report(seen, demo):
    (notebook,) = (result for result in results(seen) if "page" in result)
    assert notebook["page"] == (demo.path / "reports/everything/notebook.html").read_text()
    assert notebook["shown"] > 300


def test_every_result_has_a_caption(seen):
    assert all(len(result["caption"].strip()) > 40 for result in results(seen))


def test_results_are_sorted_and_filtered_by_what_they_are_about(seen):
    categories = seen["categories"]
    assert categories.keys() == {
        *("Adversarial examples", "Curvature", "Notebook", "Robust accuracy", "Tables", "Training"),
    }
    assert categories["Adversarial examples"]["filters"] == {"norm": ["l2", "linf"]}
    assert categories["Robust accuracy"]["columns"][:2] == ["figure", "dataset"]
    assert {"figure", "dataset", "regularizer"} == set(categories["Curvature"]["columns"])


def test_report_says_what_was_computed_and_how_long_it_took(seen):
    assert "input-Hessian regularization" in seen["workflow"]
    assert seen["charts"]
