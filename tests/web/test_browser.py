"""The page in a real browser: what people do with it, and what it must never do."""

import base64
import io
import re
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from factories import write_nifti, write_png, write_zip
from web_server import UPLOAD_MIB, RunningServer, marked_picture, marked_volume

pytest.importorskip("selenium", reason="the page is tested with selenium")

from web_browser import CHROMIUM, DRIVER, Browser

pytestmark = pytest.mark.skipif(
    not (CHROMIUM.exists() and DRIVER.exists()),
    reason="needs Debian's chromium and chromium-driver",
)

LEGEND = {(213, 94, 0), (86, 180, 233)}
"""The colours of the two classes of the model."""

TAB, HOME, END, UP, DOWN, PAGE_UP, PAGE_DOWN = 9, 36, 35, 38, 40, 33, 34


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("browser") / "profile")
    yield started
    started.close()


@pytest.fixture
def page(chromium: Browser, server: RunningServer) -> Browser:
    """The empty page."""
    chromium.open(server.address)
    return chromium


def place(page: Browser, plane: str) -> tuple[int, int]:
    """Return the slice shown and the number of slices."""
    shown, total = page.text(f".view[data-plane={plane}] output").split(" / ")
    return int(shown), int(total)


def middle(page: Browser, selector: str) -> tuple[float, float]:
    box = page.box(selector)
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def centre_of_brightest(pixels: np.ndarray) -> tuple[float, float]:
    """Return row and column, as shares of what is drawn, of the centre of the brightest pixels."""
    grey = pixels[..., 0].astype(int)
    drawn = np.argwhere(pixels[..., 3] > 0)
    (top, left), (bottom, right) = drawn.min(axis=0), drawn.max(axis=0)
    row, column = np.argwhere(grey >= grey.max() - 8).mean(axis=0)
    return (row - top) / (bottom - top), (column - left) / (right - left)


@pytest.mark.parametrize("kind", ["nifti", "zip", "dicom", "png"])
def test_every_kind_of_file_can_be_dropped(
    page: Browser, files: dict[str, Path], kind: str
) -> None:
    page.show(files[kind])
    planes = {"nifti": 3, "zip": 3, "dicom": 1, "png": 1}[kind]
    assert page.run("return document.querySelectorAll('.view').length") == planes
    assert page.text("#file-name") == files[kind].name
    assert page.canvas(".view.large canvas.image")[..., :3].any()
    assert page.run("return document.querySelectorAll('#results a').length") >= 3
    assert [entry for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize("kind", ["nifti", "zip"])
def test_left_is_on_the_right_and_every_letter_where_it_belongs(
    page: Browser, files: dict[str, Path], kind: str
) -> None:
    page.show(files[kind])
    page.run("document.querySelector('#opacity').value = 0")
    page.run("document.querySelector('#opacity').dispatchEvent(new Event('input'))")
    letters = {
        "axial": {"l": "R", "r": "L", "t": "A", "b": "P"},
        "coronal": {"l": "R", "r": "L", "t": "S", "b": "I"},
        "sagittal": {"l": "A", "r": "P", "t": "S", "b": "I"},
    }
    for plane, sides in letters.items():
        for side, letter in sides.items():
            assert page.text(f".view[data-plane={plane}] .side.{side}") == letter
    # Marks: 900 HU at the patient's left, 600 in front, 300 on top; see marked_volume.
    page.run(
        "const f = (id, v) => { const e = document.getElementById(id); e.value = v;"
        "e.dispatchEvent(new Event('change')) };"
        "f('window-width', 2000); f('window-centre', 200)"
    )
    volume = marked_volume()
    for plane, axis in (("axial", 0), ("coronal", 1), ("sagittal", 2)):
        slices = {"axial": (3, 10), "coronal": (5, 24), "sagittal": (17, 33)}[plane]
        for number in slices:
            page.run(
                "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
                "e.dispatchEvent(new Event('input'))",
                f".view[data-plane={plane}] input",
                number + 1,
            )
            page.settle()
            row, column = centre_of_brightest(page.canvas(f".view[data-plane={plane}] .image"))
            cut = np.take(volume, number, axis)
            if axis > 0:
                cut = cut[::-1]  # the head is at the top
            wanted = np.argwhere(cut == cut.max()).mean(axis=0) + 0.5
            assert row == pytest.approx(wanted[0] / cut.shape[0], abs=0.04), (plane, number)
            assert column == pytest.approx(wanted[1] / cut.shape[1], abs=0.04), (plane, number)


def test_a_picture_is_shown_as_its_file_has_it(page: Browser, files: dict[str, Path]) -> None:
    page.show(files["png"])
    row, column = centre_of_brightest(page.canvas(".image"))
    assert (row, column) == pytest.approx((9 / 48, 7 / 40), abs=0.04)
    assert page.run("return document.querySelectorAll('.side').length") == 0


def test_slices_scroll_by_wheel_keys_and_slider(page: Browser, files: dict[str, Path]) -> None:
    page.show(files["nifti"])
    assert place(page, "coronal") == (25, 48)
    x, y = middle(page, ".view[data-plane=coronal] .picture")
    page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-120)
    page.wait("document.querySelector('.view[data-plane=coronal] output').value === '26 / 48'")
    page.mouse("mouseWheel", x, y, deltaX=0, deltaY=120)
    page.wait("document.querySelector('.view[data-plane=coronal] output').value === '25 / 48'")
    for selector in (".picture", "input"):
        page.run("document.querySelector(arguments[0]).focus()", f".view.large {selector}")
        for name, code, expected in (
            *(("Home", HOME, 1), ("ArrowUp", UP, 2), ("ArrowUp", UP, 3), ("ArrowDown", DOWN, 2)),
            *(("End", END, 12), ("ArrowUp", UP, 12)),
        ):
            page.key(name, code)
            page.settle()
            assert place(page, "axial")[0] == expected, (selector, name)
    page.run("document.querySelector('.view[data-plane=coronal] .picture').focus()")
    page.key("PageUp", PAGE_UP)
    page.settle()
    assert place(page, "coronal")[0] == 35
    page.key("PageDown", PAGE_DOWN)
    page.settle()
    assert place(page, "coronal")[0] == 25
    # Another slice is another picture.
    before = page.canvas(".view.large .image")
    page.run("document.querySelector('.view.large .picture').focus()")
    page.key("Home", HOME)
    page.settle()
    assert not np.array_equal(before, page.canvas(".view.large .image"))


def test_dragging_changes_the_window_and_the_numbers_follow(
    page: Browser, files: dict[str, Path]
) -> None:
    page.show(files["nifti"])

    def window() -> tuple[float, float]:
        centre, width = page.run(
            "return ['window-centre', 'window-width']"
            ".map((id) => Number(document.getElementById(id).value))"
        )
        shown = re.fullmatch(r"C (\S+)\s+W (\S+) HU", page.text(".view.large .shown-window"))
        assert shown is not None
        assert (float(shown[1]), float(shown[2])) == (centre, width)
        return centre, width

    assert window() == (40.0, 400.0)
    before = page.canvas(".view.large .image")
    x, y = middle(page, ".view.large .picture")
    page.drag((x, y), (120, 0))
    centre, width = window()
    assert centre == 40.0
    assert width > 500
    page.drag((x, y), (0, 80))
    assert window()[0] > 100
    assert window()[1] == width
    assert not np.array_equal(before, page.canvas(".view.large .image"))
    for element, value in (("window-centre", 300), ("window-width", 50)):
        page.run(
            "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
            "e.dispatchEvent(new Event('change'))",
            element,
            value,
        )
    page.settle()
    assert window() == (300.0, 50.0)
    preset = "document.querySelector('#window-preset')"
    assert page.run(f"return {preset}.value") == ""
    page.run(f"{preset}.value = '-600 1500'; {preset}.dispatchEvent(new Event('change'))")
    page.settle()
    assert window() == (-600.0, 1500.0)
    assert page.run(f"return {preset}.value") == "-600 1500"
    page.drag((x, y), (40, 0))
    assert page.run(f"return {preset}.value") == ""
    page.run("document.activeElement.blur()")
    page.key("r", 82)
    page.settle()
    assert window() == (40.0, 400.0)
    assert page.run(f"return {preset}.value") == "first"


def test_at_full_opacity_only_the_colours_of_the_legend_occur(
    page: Browser, files: dict[str, Path]
) -> None:
    page.show(files["nifti"])
    swatches = page.run(
        "return [...document.querySelectorAll('.swatch')].map((e) => e.style.backgroundColor)"
    )
    assert {tuple(map(int, re.findall(r"\d+", text))) for text in swatches} == LEGEND
    set_opacity(page, 100)
    layer = page.canvas(".view.large .overlay").reshape(-1, 4)
    assert set(np.unique(layer[:, 3])) == {0, 255}
    found = {tuple(map(int, colour)) for colour in np.unique(layer[layer[:, 3] > 0, :3], axis=0)}
    assert found == LEGEND
    # The same on the screen: every pixel of the image is grey or a colour of the legend.
    page.run("document.querySelectorAll('.picture span, .cross').forEach((e) => e.remove())")
    page.settle()
    box = page.box(".view.large .picture")
    seen = page.screenshot()[
        int(box["y"]) + 2 : int(box["y"] + box["height"]) - 2,
        int(box["x"]) + 2 : int(box["x"] + box["width"]) - 2,
    ].reshape(-1, 3)
    coloured = seen[seen.max(axis=1) != seen.min(axis=1)]
    assert {tuple(map(int, colour)) for colour in np.unique(coloured, axis=0)} == LEGEND
    set_opacity(page, 40)
    assert page.run("return document.querySelector('.large .overlay').style.opacity") == "0.4"
    assert page.text("#opacity-value") == "40 %"
    page.click("#legend input")
    page.settle()
    layer = page.canvas(".view.large .overlay").reshape(-1, 4)
    assert len(np.unique(layer[layer[:, 3] > 0, :3], axis=0)) == 1


@pytest.mark.parametrize(
    ("width", "height", "scale"), [(1280, 720, 1.0), (1280, 720, 1.25), (1536, 865, 1.25)]
)
def test_no_colours_are_blended_where_pixels_of_the_screen_do_not_fit(
    page: Browser, files: dict[str, Path], width: int, height: int, scale: float
) -> None:
    """Planes may begin at half a pixel, and desktops are often shown at 125 %."""
    page.show(files["nifti"])
    set_opacity(page, 100)
    page.run("document.querySelectorAll('.picture span, .cross').forEach((e) => e.remove())")
    try:
        page.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )
        page.settle()
        page.settle()
        screen = page.screenshot()
        for plane in ("axial", "coronal", "sagittal"):
            box = page.box(f".view[data-plane={plane}] .picture")
            seen = screen[
                int((box["y"] + 2) * scale) : int((box["y"] + box["height"] - 2) * scale),
                int((box["x"] + 2) * scale) : int((box["x"] + box["width"] - 2) * scale),
            ].reshape(-1, 3)
            coloured = seen[seen.max(axis=1) != seen.min(axis=1)]
            assert {tuple(map(int, one)) for one in np.unique(coloured, axis=0)} == LEGEND, plane
    finally:
        page.resize(1280, 800)


def set_opacity(page: Browser, percent: int) -> None:
    page.run(
        "const e = document.querySelector('#opacity'); e.value = arguments[0];"
        "e.dispatchEvent(new Event('input'))",
        percent,
    )
    page.settle()


def test_classes_come_with_a_note_and_evidence_as_a_layer(
    page: Browser, files: dict[str, Path]
) -> None:
    page.show(files["zip"])
    text = page.text("#classes-section")
    assert "bright" in text
    assert "dark" in text
    assert "were not compared with outcomes" in text
    assert "this slice" in text
    options = page.run("return [...document.querySelectorAll('#layer option')].map((o) => o.text)")
    assert options == [
        *("Segmentation (organs)", "Evidence (finding)", "Reconstruction error (mae)", "none")
    ]
    for number in (1, 2):
        page.run(
            "const e = document.querySelector('#layer'); e.selectedIndex = arguments[0];"
            "e.dispatchEvent(new Event('change'))",
            number,
        )
        page.wait("!document.querySelector('#scale').hidden")
        page.settle()
        assert page.canvas(".view.large .overlay")[..., 3].any()


def test_a_slice_is_hidden_and_filled_in_at_the_chosen_ratio(
    page: Browser, files: dict[str, Path]
) -> None:
    page.show(files["nifti"])
    page.click("#mode label:nth-child(2)")
    said = "document.querySelector('#reconstruction-note').textContent"
    page.wait(f"{said}.includes('of the pixels were hidden')")
    first = page.canvas("#seen")
    assert first.shape == (48, 40, 4)
    # What belongs to the planes is gone, with the planes.
    assert page.box("#window-section")["height"] == page.box("#overlay-section")["height"] == 0
    assert page.canvas("#filled")[..., 3].all()
    assert page.canvas("#error")[..., :3].any()
    before = page.run(f"return {said}")
    page.run(
        "const e = document.querySelector('#ratio'); e.value = 25;"
        "e.dispatchEvent(new Event('input'))"
    )
    page.wait(f"!{said}.startsWith('Drawing') && {said} !== {before!r}")
    hidden = [(picture[..., 0] == 52).mean() for picture in (first, page.canvas("#seen"))]
    assert hidden[0] > hidden[1] + 0.2


def test_a_slice_that_is_filled_in_has_the_shape_that_it_has_in_the_patient(
    page: Browser, tmp_path: Path
) -> None:
    volume = np.ascontiguousarray(marked_volume().transpose(2, 1, 0))
    page.show(write_nifti(tmp_path / "flat_ct.nii.gz", volume, np.diag([3.0, 1.0, 9.0, 1.0])))
    page.click("#mode label:nth-child(2)")
    page.wait("document.querySelector('#seen').width === 120")
    assert page.canvas("#seen").shape == page.canvas("#error").shape == (48, 120, 4)


def test_another_image_of_an_upload_brings_its_own_layers_and_reconstruction(
    page: Browser, files: dict[str, Path], tmp_path: Path
) -> None:
    smaller = write_png(tmp_path / "b.png", marked_picture()[:32])
    page.show(write_zip(tmp_path / "two.zip", {"a.png": files["png"], "b.png": smaller}))
    page.click("#mode label:nth-child(2)")
    page.wait("document.querySelector('#seen').height === 48")
    page.requested()
    page.run(
        "const e = document.querySelector('#image-choice'); e.value = '1';"
        "e.dispatchEvent(new Event('change'))"
    )
    page.wait("document.querySelector('#seen').height === 32")
    page.wait("document.querySelector('#layer').value === '1.labels-0'")
    choice = page.run(
        "return [...document.querySelectorAll('#image-choice option')].map((o) => o.text)"
    )
    assert [text.split(":")[0] for text in choice] == ["1", "2"]
    asked = [address.rsplit("/", 1)[1] for address in page.requested()]
    assert asked.count("1.labels-0") == 1
    assert asked.count("1.pixels") == 1


def test_results_are_downloaded_as_predict_writes_them(
    page: Browser, files: dict[str, Path], server: RunningServer
) -> None:
    page.show(files["nifti"])
    links = page.run("return [...document.querySelectorAll('#results a')].map((a) => a.href)")
    saved = page.download(lambda: page.click("#results a"), "head_ct.nii.gz")
    address = next(link for link in links if link.endswith("head_ct.nii.gz"))
    assert saved == server.client().get(address).content
    with files["nifti"].open("rb") as content:
        answer = server.client().post(
            "/v1/predict", files={"file": ("head_ct.nii.gz", content)}, data={"answer": "files"}
        )
    assert answer.status_code == 200
    assert page.download(lambda: page.click("#results li:last-child a"), "vismae-results.zip")


def test_a_file_that_is_no_image_is_named_with_the_reason(
    page: Browser, files: dict[str, Path]
) -> None:
    page.show(files["text"])
    assert page.run("return document.body.dataset.state") == "problem"
    assert "letter.txt: not a known image format" in page.text("#problem-message")
    assert "unknown-format" in page.text("#problem-code")
    page.show(files["png"])
    assert page.run("return document.body.dataset.state") == "views"


def test_too_large_a_file_is_refused_by_the_page_and_by_the_server(
    page: Browser, tmp_path: Path
) -> None:
    big = tmp_path / "big.nii"
    big.write_bytes(bytes(UPLOAD_MIB * 2**20 + 200_000))
    page.show(big)
    assert "at most 2.1 MB are taken" in page.text("#problem-message")
    status = page.driver.execute_async_script(
        "const done = arguments[1]; const form = new FormData();"
        "form.append('file', new Blob([new Uint8Array(arguments[0])]), 'a.nii');"
        "fetch('/page/studies', {method: 'POST', body: form}).then((r) => done(r.status))",
        big.stat().st_size,
    )
    assert status == 413


def test_everything_that_can_be_used_has_a_name(page: Browser, files: dict[str, Path]) -> None:
    usable = {"button", "slider", "combobox", "spinbutton", "checkbox", "radio", "link", "textbox"}

    def unnamed() -> list[str]:
        return [
            str(node)
            for node in page.nodes()
            if node["role"] in usable and not node["name"].strip()
        ]

    assert unnamed() == []
    page.show(files["nifti"])
    assert unnamed() == []
    names = {(node["role"], node["name"]) for node in page.nodes()}
    for wanted in (
        *(("slider", "Axial slice"), ("slider", "Coronal slice"), ("slider", "Opacity")),
        *(("spinbutton", "Centre"), ("spinbutton", "Width"), ("radio", "Reconstruction")),
        *(("slider", "Axial slice on the image"), ("button", "Enlarge coronal view")),
        ("heading", "vismae"),
    ):
        assert any(role == wanted[0] and name.startswith(wanted[1]) for role, name in names), wanted
    assert {"main", "banner", "complementary"} <= {role for role, _ in names}


def test_the_keyboard_alone_reaches_and_moves_everything(
    page: Browser, files: dict[str, Path]
) -> None:
    page.show(files["nifti"])
    page.run("document.activeElement.blur()")
    reached: list[str] = []
    for _ in range(60):
        page.key("Tab", TAB)
        reached.append(
            page.run(
                "const e = document.activeElement;"
                "return e.id || e.getAttribute('aria-label') || e.textContent || e.tagName"
            )
        )
        if len(reached) > 1 and reached[-1] == "BODY":
            break
    for wanted in (
        *("open", "close", "Axial slice on the image", "Axial slice", "Enlarge sagittal view"),
        *(
            "window-centre",
            "window-width",
            "window-preset",
            "layer",
            "opacity",
            "modality",
            "again",
        ),
        "head_ct.nii.gz",
    ):
        assert wanted in reached, (wanted, reached)
    page.run("document.querySelector('#opacity').focus()")
    before = page.text("#opacity-value")
    page.key("ArrowUp", UP)
    assert page.text("#opacity-value") != before
    page.run("document.activeElement.blur()")
    page.key("3", 51)
    page.wait("document.querySelector('.view.large').dataset.plane === 'sagittal'")
    page.key("l", 76)
    page.settle()
    assert page.text("#opacity-value") == "0 %"


def test_keys_work_with_the_focus_on_a_slider_but_not_in_a_field(
    page: Browser, files: dict[str, Path]
) -> None:
    page.show(files["nifti"])
    page.run("document.querySelector('#opacity').focus()")
    page.key("l", 76)
    page.key("3", 51)
    page.settle()
    assert page.text("#opacity-value") == "0 %"
    assert page.run("return document.querySelector('.view.large').dataset.plane") == "sagittal"
    page.run("document.querySelector('#window-width').focus()")
    page.key("1", 49)
    page.settle()
    assert page.run("return document.querySelector('.view.large').dataset.plane") == "sagittal"


def test_colours_that_mean_something_stay_where_the_system_sets_the_others(
    page: Browser, files: dict[str, Path]
) -> None:
    page.show(files["nifti"])
    forced = [{"name": "forced-colors", "value": "active"}]
    page.command("Emulation.setEmulatedMedia", features=forced)
    try:
        page.settle()
        assert page.run("return matchMedia('(forced-colors: active)').matches")
        page.run("document.querySelector('#legend').scrollIntoView()")
        picture = page.screenshot()
        shown = set()
        for number in range(2):
            selector = f"#legend li:nth-child({number + 1}) .swatch"
            x, y = middle(page, selector)
            shown.add(tuple(int(part) for part in picture[int(y), int(x)][:3]))
        assert shown == LEGEND
        box = page.box(".view.large .picture")
        corner = picture[int(box["y"]) + 40, int(box["x"]) + 4][:3]
        assert tuple(corner) == (0, 0, 0)
    finally:
        page.command("Emulation.setEmulatedMedia", features=[])


def test_nothing_but_the_own_server_is_ever_asked(
    page: Browser, files: dict[str, Path], server: RunningServer
) -> None:
    page.requested()
    page.open(server.address)
    page.show(files["nifti"])
    page.driver.get(f"{server.address}docs")
    page.wait("document.querySelectorAll('article').length === 4")
    assert "multipart" not in page.text("#status")
    time.sleep(1.0)
    asked = page.requested()
    assert len(asked) > 10
    own = urlsplit(server.address).netloc
    foreign = [
        address
        for address in asked
        if urlsplit(address).scheme not in ("data", "blob") and urlsplit(address).netloc != own
    ]
    assert foreign == []


def test_leaving_the_page_deletes_what_the_server_had(
    page: Browser, files: dict[str, Path], server: RunningServer
) -> None:
    page.show(files["nifti"])
    folder = server.folder / page.run("return document.body.dataset.done")
    assert folder.exists()
    page.driver.get(f"{server.address}docs")
    end = time.monotonic() + 30
    while folder.exists():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_without_a_model_the_image_alone_is_shown(page: Browser, files: dict[str, Path]) -> None:
    page.run("document.querySelectorAll('#models input').forEach((e) => { e.checked = false; })")
    page.show(files["nifti"])
    assert page.run("return document.body.dataset.state") == "views"
    assert page.canvas(".view.large canvas.image")[..., :3].any()
    assert page.run("return document.querySelectorAll('#results a').length") == 0


def test_a_file_may_be_dropped_before_the_server_has_said_what_it_offers(
    chromium: Browser, server: RunningServer, files: dict[str, Path]
) -> None:
    network = {"offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
    chromium.command("Network.emulateNetworkConditions", latency=1500, **network)
    try:
        chromium.driver.get(server.address)
        assert not chromium.run("return document.querySelectorAll('#models input').length")
        chromium.drop(files["png"])
        chromium.wait("document.body.dataset.done", 30)
    finally:
        chromium.command("Network.emulateNetworkConditions", latency=0, **network)
    assert chromium.run("return document.body.dataset.state") == "views"
    assert chromium.text("#file-name") == files["png"].name


def test_what_is_dropped_next_gives_up_what_was_before(
    page: Browser, files: dict[str, Path], server: RunningServer
) -> None:
    page.show(files["nifti"])
    folder = server.folder / page.run("return document.body.dataset.done")
    page.show(files["png"], files["dicom"])
    assert page.text("#file-name") == "2 files.zip"
    assert page.run("return document.querySelector('#image-choice').length") == 2
    end = time.monotonic() + 30
    while folder.exists():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_folder_of_a_series_is_taken_like_its_archive(
    page: Browser, files: dict[str, Path], tmp_path: Path
) -> None:
    series = tmp_path / "Kopf ü" / "CT 1"
    shutil.copytree(files["dicom"].parent, series)
    (series / ".DS_Store").write_bytes(b"of a desktop")
    page.show(files["zip"])
    expected = page.canvas(".view.large canvas.image"), page.text("#legend")
    page.show(tmp_path / "Kopf ü")
    assert page.text("#file-name") == "Kopf ü.zip"
    assert page.run("return document.querySelectorAll('.view').length") == 3
    assert np.array_equal(page.canvas(".view.large canvas.image"), expected[0])
    assert page.text("#legend") == expected[1]
    assert page.text("#notes") == ""


def test_an_archive_made_by_the_page_is_sound(
    page: Browser, files: dict[str, Path], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    members = {f"a/{name}": rng.bytes(size) for name, size in (("é.bin", 70_000), ("b/0", 1))}
    made = page.driver.execute_async_script(
        "const [given, done] = arguments;"
        "import('/page/files/archive.js').then(async ({ oneFile }) => {"
        "  const members = Object.entries(given).map(([path, text]) => ({ path, file:"
        "    new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], 'x') }));"
        "  const file = await oneFile(members, 1e6, () => {}, new AbortController().signal);"
        "  const reader = new FileReader();"
        "  reader.onload = () => done([file.name, reader.result.split(',')[1]]);"
        "  reader.readAsDataURL(file);"
        "});",
        {path: base64.b64encode(data).decode() for path, data in members.items()},
    )
    assert made[0] == "a.zip"
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(made[1]))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == members


def test_a_folder_with_one_file_is_that_file(
    page: Browser, files: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "film").mkdir()
    shutil.copy(files["png"], tmp_path / "film")
    page.show(tmp_path / "film")
    assert page.text("#file-name") == files["png"].name


@pytest.mark.parametrize(
    ("sizes", "said"), [((), "no files"), ((UPLOAD_MIB * 2**20, 200_000), "at most")]
)
def test_a_folder_that_cannot_be_taken_says_why(
    page: Browser, tmp_path: Path, sizes: tuple[int, ...], said: str
) -> None:
    (tmp_path / "folder").mkdir()
    for number, size in enumerate(sizes):
        (tmp_path / "folder" / f"{number}.nii").write_bytes(bytes(size))
    page.show(tmp_path / "folder")
    assert said in page.text("#problem-message")
    assert page.run("return document.querySelector('#file-bar').hidden")


def test_a_folder_can_be_chosen_with_a_button(page: Browser, files: dict[str, Path]) -> None:
    page.run("delete document.body.dataset.done")
    page.driver.find_element("id", "folder").send_keys(str(files["dicom"].parent))
    page.wait("document.body.dataset.done")
    assert page.text("#file-name") == "series.zip"
    assert page.run("return document.querySelectorAll('.view').length") == 3


@pytest.mark.parametrize("size", [(1280, 800), (900, 600), (390, 844)])
def test_long_names_do_not_push_anything_off_the_page(
    page: Browser, files: dict[str, Path], size: tuple[int, int]
) -> None:
    page.resize(*size)
    try:
        page.show(files["nifti"])
        page.run(
            "const long = 'ascending_colon_with_hepatic_flexure and appendix '.repeat(3);"
            "document.querySelector('#layer').options[0].text = long;"
            "document.querySelector('#legend label').childNodes[2].textContent = long;"
            "document.querySelector('.class-row span').textContent = long.replaceAll(' ', '_');"
        )
        page.settle()
        wide = page.run(
            "return [document.documentElement, document.querySelector('#panel'),"
            "  document.querySelector('header')].map((e) => e.scrollWidth - e.clientWidth)"
        )
        assert wide == [0, 0, 0]
        # No letter of a side lies under another word.
        covered = page.run(
            "const boxes = (query) => [...document.querySelectorAll(query)]"
            "  .map((e) => e.getBoundingClientRect()).filter((b) => b.width);"
            "const meet = (a, b) => a.left < b.right && b.left < a.right"
            "  && a.top < b.bottom && b.top < a.bottom;"
            "return boxes('.side').filter((a) => boxes('.name, .shown-window, .value')"
            "  .some((b) => meet(a, b))).length"
        )
        assert covered == 0
    finally:
        page.resize(1280, 800)


@pytest.mark.parametrize("size", [(1280, 800), (1920, 1080)])
def test_nothing_is_cut_off_at_usual_sizes(
    page: Browser, files: dict[str, Path], size: tuple[int, int]
) -> None:
    page.resize(*size)
    try:
        page.show(files["nifti"])
        overflow = page.run(
            "const e = document.documentElement;"
            "return [e.scrollWidth - e.clientWidth, e.scrollHeight - e.clientHeight]"
        )
        assert overflow == [0, 0]
        large = page.box(".view.large .picture")
        assert large["width"] * large["height"] > 0.3 * size[0] * size[1]
    finally:
        page.resize(1280, 800)
