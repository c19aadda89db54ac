"""Where uploads lie: closed to others, and gone when their server is."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from vismae.web.folders import PrivateFolder, remove_orphans, safe_name


def test_only_the_user_can_enter(tmp_path: Path) -> None:
    home = PrivateFolder(tmp_path)
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((home.new() / "upload").stat().st_mode) == 0o700
    assert len({home.new().name for _ in range(20)}) == 20
    home.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_stopped_while_its_models_load_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import contextlib, os, signal, sys; from pathlib import Path; "
        "from vismae.web.folders import PrivateFolder; from vismae.web.server import orderly_end\n"
        "with contextlib.ExitStack() as stack:\n"
        "    stack.enter_context(orderly_end())\n"
        "    stack.callback(PrivateFolder(Path(sys.argv[1])).remove)\n"
        "    os.kill(os.getpid(), signal.SIGTERM); signal.pause()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=120, check=False)
    assert done.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_server_left_is_removed_and_what_lives_is_not(tmp_path: Path) -> None:
    living = PrivateFolder(tmp_path)
    code = (
        "import os, sys; from pathlib import Path; from vismae.web.folders import PrivateFolder; "
        "print(PrivateFolder(Path(sys.argv[1])).path, flush=True); os._exit(1)"
    )
    died = subprocess.run([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True)
    orphan = Path(died.stdout.strip())
    assert orphan.is_dir()
    (tmp_path / "vismae-web-link").symlink_to(tmp_path / "elsewhere")
    remove_orphans(tmp_path)
    assert not orphan.exists()
    assert living.path.is_dir()
    assert os.path.lexists(tmp_path / "vismae-web-link")
    living.remove()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("scan.nii.gz", "scan.nii.gz"),
        ("../../etc/passwd", "passwd"),
        ("C:\\scans\\head_T1w.nii", "head_T1w.nii"),
        (".bashrc", "bashrc"),
        ("-rf", "rf"),
        ("a\x00b\nc!d.png", "a_b_c_d.png"),
        ("Schädel 1.dcm", "Schädel 1.dcm"),
        ("Scha\u0308del.dcm", "Schädel.dcm"),
        ("扫描_ct.nii.gz", "扫描_ct.nii.gz"),
        ("／etc／\u202epasswd", "_etc_passwd"),
        ("漢" * 60 + ".nii.gz", "漢" * 24 + ".nii.gz"),
        ("", "upload"),
        ("...", "upload"),
        (None, "upload"),
        ("x" * 300 + ".nii.gz", "x" * 73 + ".nii.gz"),
    ],
)
def test_a_file_name_is_only_ever_a_name(given: str | None, kept: str) -> None:
    assert safe_name(given) == kept
