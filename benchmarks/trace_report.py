"""Reports of many jobs: what they cost a pool, and how fast a browser draws them.

usage: python benchmarks/trace_report.py [JOBS]
A browser is asked if there is a Chromium.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from compilepool import CompilePool, report_phase

REPEATS = 3
PHASES = ("parse", "lower", "emit")
LOOK = """<script>
document.body.dataset.shown = performance.now();
timeline.zoomOut();
const took = [];
for (let step = 0; step < 120; step++) {
  if (step < 30) timeline.zoom(0.9); else if (step < 60) timeline.zoom(1 / 0.9);
  else timeline.move(timeline.wall / 200);
  const began = performance.now();
  timeline.draw();
  timeline.context.getImageData(0, 0, 1, 1); // waits until it is really drawn
  took.push(performance.now() - began);
}
took.sort((a, b) => a - b);
document.body.dataset.took = JSON.stringify([took[60], took[114]]);
</script></body>"""


def job(number: int) -> int:
    for phase in PHASES:
        report_phase(phase)
    return number


def run(jobs: int, **options: Any) -> tuple[float, float]:
    """The seconds that jobs take in a warm pool, and that its shutdown takes."""
    pool = CompilePool(2, **options)
    pool.wait_ready()
    began = time.perf_counter()
    futures = [pool.options(name=f"kernel_{n}").submit(job, n) for n in range(jobs)]
    for future in futures:
        future.result()
    done = time.perf_counter()
    pool.shutdown()
    return done - began, time.perf_counter() - done


def in_browser(page: Path) -> dict[str, float]:
    """The seconds until the page is drawn, and the seconds of one frame of its timeline."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return {}
    copy = page.with_name("copy.html")
    copy.write_text(page.read_text().replace("</body>", LOOK))
    profile = f"--user-data-dir={page.with_name('profile')}"
    size = "--window-size=1200,900"
    command = [chromium, "--headless", "--no-sandbox", profile, size, "--dump-dom", copy.as_uri()]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    shown = re.search(r'data-shown="([\d.]+)"', text)
    took = re.search(r'data-took="\[([\d.]+),([\d.]+)\]"', text)
    assert shown
    assert took
    return {
        "drawn_s": float(shown[1]) / 1e3,
        "frame_p50_s": float(took[1]) / 1e3,
        "frame_p95_s": float(took[2]) / 1e3,
    }


def main(jobs: int) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        trace, page = Path(folder, "trace.json"), Path(folder, "report.html")
        kinds: dict[str, dict[str, Any]] = {
            "none": {},
            "trace": {"trace": trace},
            "report": {"trace": trace, "report": page},
        }
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
        for _ in range(REPEATS):  # side by side
            for name, options in kinds.items():
                seconds[name].append(run(jobs, **options))
        found = {
            name: {
                "jobs_s": round(statistics.median(each[0] for each in times), 2),
                "shutdown_s": round(statistics.median(each[1] for each in times), 2),
            }
            for name, times in seconds.items()
        }
        size = {"page_mb": round(page.stat().st_size / 1e6, 2)}
        browser = {name: round(value, 4) for name, value in in_browser(page).items()}
    print(json.dumps({"jobs": jobs, **found, "page": {**size, **browser}}, indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
