"""A headless Chromium that is driven like a person drives it."""

import base64
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

CHROMIUM = Path("/usr/bin/chromium")
DRIVER = Path("/usr/bin/chromedriver")
_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-default-apps", "--disable-domain-reliability", "--no-pings", "--disable-breakpad"),
    "--disable-features=OptimizationHints,MediaRouter,Translate,AutofillServerCommunication",
    "--disable-dev-shm-usage",
)


class Browser:
    """A browser with one page."""

    def __init__(self, profile: Path, size: tuple[int, int] = (1280, 800)) -> None:
        options = Options()
        options.binary_location = str(CHROMIUM)
        for word in (*_OPTIONS, f"--user-data-dir={profile}"):
            options.add_argument(word)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(service=Service(str(DRIVER)), options=options)
        self.driver.set_script_timeout(60)
        self.resize(*size)
        self.downloads = profile.parent / "downloads"
        self.downloads.mkdir(exist_ok=True)
        self.command(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads)
        )

    def resize(self, width: int, height: int) -> None:
        """Set the size of the page, one device pixel for each of its own."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def command(self, name: str, **arguments: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def run(self, code: str, *arguments: Any) -> Any:
        """Run a script on the page and return what it returns."""
        return self.driver.execute_script(code, *arguments)

    def wait(self, condition: str, seconds: float = 90.0) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < end, f"never true: {condition}; {self.text('body')[:600]}"
            time.sleep(0.05)

    def settle(self) -> None:
        """Wait until the page has drawn."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"
        )

    def text(self, selector: str) -> str:
        """Return what is read in an element."""
        return self.run("return document.querySelector(arguments[0]).innerText", selector)

    def box(self, selector: str) -> dict[str, float]:
        """Return where an element is."""
        return self.run(
            "const b = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return {x: b.x, y: b.y, width: b.width, height: b.height}",
            selector,
        )

    def open(self, address: str) -> None:
        """Open the page and wait until it takes files."""
        self.driver.get(address)
        self.wait("document.querySelector('#models input')")

    def drop(self, *files: Path) -> None:
        """Drop files or folders on the page, as from the desktop."""
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.command("Input.dispatchDragEvent", type=kind, x=200, y=300, data=data)

    def show(self, *files: Path) -> None:
        """Drop files or folders and wait until the models have answered."""
        self.run("delete document.body.dataset.done")
        self.drop(*files)
        self.wait("document.body.dataset.done || document.body.dataset.state === 'problem'")
        # What a layer holds comes a moment later.
        self.wait(
            "document.querySelector('#layer').value === '' || "
            "document.querySelector('#legend').childElementCount || "
            "!document.querySelector('#scale').hidden"
        )
        self.settle()

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Move, press or release the mouse, or turn its wheel."""
        self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def drag(self, start: tuple[float, float], by: tuple[float, float]) -> None:
        """Drag with the left button."""
        x, y = start
        self.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
        for step in range(1, 6):
            self.mouse(
                "mouseMoved",
                x + by[0] * step / 5,
                y + by[1] * step / 5,
                button="left",
                buttons=1,
            )
        self.mouse("mouseReleased", x + by[0], y + by[1], button="left", clickCount=1)
        self.settle()

    def click(self, selector: str) -> None:
        """Click the middle of an element."""
        self.run(
            "document.querySelector(arguments[0]).scrollIntoView({block: 'nearest'})", selector
        )
        box = self.box(selector)
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.mouse("mousePressed", x, y, button="left", clickCount=1)
        self.mouse("mouseReleased", x, y, button="left", clickCount=1)

    def key(self, name: str, code: int) -> None:
        """Press and release a key on whatever has the focus."""
        shared = {"key": name, "code": name, "windowsVirtualKeyCode": code}
        self.command("Input.dispatchKeyEvent", type="rawKeyDown", **shared)
        if len(name) == 1:
            self.command("Input.dispatchKeyEvent", type="char", text=name)
        self.command("Input.dispatchKeyEvent", type="keyUp", **shared)

    def canvas(self, selector: str) -> np.ndarray:
        """Return the pixels of a canvas, (H, W, 4)."""
        found = self.run(
            "const c = document.querySelector(arguments[0]);"
            "const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "let text = ''; for (let k = 0; k < p.length; k += 32768)"
            "  text += String.fromCharCode(...p.subarray(k, k + 32768));"
            "return [c.width, c.height, btoa(text)]",
            selector,
        )
        width, height, coded = found
        return np.frombuffer(base64.b64decode(coded), np.uint8).reshape(height, width, 4)

    def screenshot(self) -> np.ndarray:
        """Return what is seen, (H, W, 3)."""
        shown = Image.open(io.BytesIO(self.driver.get_screenshot_as_png()))
        return np.asarray(shown.convert("RGB"))

    def requested(self) -> list[str]:
        """Return the addresses that were asked for since this was last called."""
        addresses = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                addresses.append(message["params"]["request"]["url"])
        return addresses

    def nodes(self) -> list[dict[str, Any]]:
        """Return the accessibility tree as a list of role, name and whether it takes the focus."""
        self.command("Accessibility.enable")
        found = self.command("Accessibility.getFullAXTree")["nodes"]
        return [
            {
                "role": node.get("role", {}).get("value"),
                "name": node.get("name", {}).get("value", ""),
                "value": node.get("value", {}).get("value"),
                "focusable": any(
                    entry["name"] == "focusable" and entry["value"]["value"]
                    for entry in node.get("properties", [])
                ),
            }
            for node in found
            if not node.get("ignored")
        ]

    def download(self, press: Callable[[], None], name: str) -> bytes:
        """Return the content of a file that pressing something saves."""
        target = self.downloads / name
        target.unlink(missing_ok=True)
        press()
        end = time.monotonic() + 60
        while not target.exists():
            assert time.monotonic() < end, list(self.downloads.iterdir())
            time.sleep(0.05)
        return target.read_bytes()

    def close(self) -> None:
        """Leave the page, which lets the server forget its file, and end the browser."""
        self.driver.get("about:blank")
        self.driver.quit()
