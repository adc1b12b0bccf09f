"""Small stand-ins of DPOT's 12 datasets in the published layouts and under the published names, and who serves them."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from layout_support import LAYOUTS

FRAMES = 6
GRID = 16
PDEBENCH = {
    f"2D_CFD_Rand_M{mach}_Eta{eta}_Zeta{eta}_periodic_128_Train.hdf5": (mach, eta)
    for mach in (1.0, 0.1)
    for eta in (0.1, 0.01)
}
SMOKE = ("u", "vx", "vy")
CASES: Mapping[str, Mapping[str, float]] = {
    "cavity": {"vel_top": 2.0, "density": 1.0, "viscosity": 0.01, "height": 0.1, "width": 0.1},
    "tube": {"vel_in": 3.0, "density": 10.0, "viscosity": 0.1, "height": 0.1, "width": 1.0},
    "cylinder": {"vel_in": 1.5, "density": 10.0, "viscosity": 0.001, "radius": 0.011}
    | {"x_min": -0.02, "x_max": 0.04, "y_min": -0.02, "y_max": 0.02},
}


def values(name: str, *shape: int) -> NDArray[np.float32]:
    """Values that belong to a name, without symmetry."""
    random = np.random.default_rng(list(name.encode()))
    return random.normal(size=shape).cumsum(-1).astype("f4")


def write_all(root: Path) -> Path:
    """All 12, where the catalogue looks for them."""
    write_fno(root / "fno")
    write_pdebench(root / "pdebench")
    write_pdearena(root / "pdearena" / "NavierStokes-2D", "0.50000")
    write_pdearena(root / "pdearena" / "NavierStokes-2D-conditoned", "0.40963", conditioned=True)
    write_cfdbench(root / "cfdbench")
    return root


def write_fno(folder: Path, count: int = 6) -> None:
    """One file of the old format, two of MATLAB 7.3: HDF5 behind 512 bytes of MATLAB's own, all axes reversed."""
    folder.mkdir(parents=True)
    for name in ("NavierStokes_V1e-5_N1200_T20.mat", "ns_V1e-4_N10000_T30.mat", "ns_V1e-3_N5000_T50.mat"):
        arrays = {
            "a": values(f"{name} a", count, GRID, GRID),
            "u": values(f"{name} u", count, GRID, GRID, FRAMES),
            "t": np.arange(1.0, FRAMES + 1)[None],
        }
        if name.startswith("Navier"):
            savemat(folder / name, arrays)
            continue
        with h5py.File(folder / name, "w", userblock_size=512) as file:
            for key, array in arrays.items():
                file[key] = array.T
        with (folder / name).open("r+b") as file:
            file.write((LAYOUTS / "fno" / "fno_ns_V1e-3_N3_T4_v73.mat").read_bytes()[:512])


def write_pdebench(folder: Path, count: int = 6) -> None:
    """Compressible flow in one array for each quantity, diffusion–reaction and dam break in one group for each run."""
    folder.mkdir(parents=True)
    for name, (mach, eta) in PDEBENCH.items():
        with h5py.File(folder / name, "w") as file:
            for key in ("Vx", "Vy", "density", "pressure"):
                file[key] = values(f"{name} {key}", count, FRAMES, GRID, GRID)
            file["t-coordinate"] = np.arange(FRAMES + 1, dtype="f4") * 0.05
            for axis in "xy":
                file[f"{axis}-coordinate"] = (np.arange(GRID, dtype="f4") + 0.5) / GRID
            file.attrs.update({"M": mach, "eta": eta, "zeta": eta})
    for name, sample, channels in (
        ("2D_diff-react_NA_NA.h5", "pdebench_2D_diff-react_16.h5", 2),
        ("2D_rdb_NA_NA.h5", "pdebench_2D_rdb_16.h5", 1),
    ):
        with h5py.File(LAYOUTS / "pdebench" / sample) as published:
            config = published["0000"].attrs["config"]
        with h5py.File(folder / name, "w") as file:
            for number in range(count):
                group = file.create_group(f"{number:04d}")
                data = values(f"{name} {number}", FRAMES, GRID, GRID, channels)
                group.create_dataset("data", data=data, chunks=(2, GRID, GRID, channels), compression="lzf")
                group["grid/t"] = np.arange(FRAMES, dtype="f4")
                for axis in "xy":
                    group[f"grid/{axis}"] = np.arange(GRID, dtype="f4")
                group.attrs["config"] = config


def write_pdearena(folder: Path, buoyancy: str, conditioned: bool = False) -> None:
    """Two trajectories a file, one group named after the split."""
    folder.mkdir(parents=True)
    for split, seeds in {"train": (296423, 415574), "valid": (142203,), "test": (646244,)}.items():
        for seed in seeds:
            size = "_2" if split == "train" else ""
            with h5py.File(folder / f"NavierStokes2D_{split}_{seed}_{buoyancy}{size}.h5", "w") as file:
                group = file.create_group(split)
                for name in SMOKE:
                    group[name] = values(f"{folder.name} {seed} {name}", 2, FRAMES, GRID, GRID)
                if conditioned:
                    group["buo_y"] = np.array([0.3, 0.4])


def write_cfdbench(folder: Path, cases: int = 10) -> None:
    """Case folders of all three subsets."""
    for problem, parameters in CASES.items():
        for number in range(cases):
            case = folder / problem / ("prop", "bc", "geo")[number % 3] / f"case{number:04d}"
            case.mkdir(parents=True)
            for name in "uv":
                np.save(case / f"{name}.npy", values(f"{problem} {number} {name}", 25, GRID, GRID))
            (case / "case.json").write_text(json.dumps({**parameters, "density": 1.0 + number}))


class _Ranges(SimpleHTTPRequestHandler):
    """Python's own server of a folder, with pages that list what is in it, and with ranges of bytes."""

    protocol_version = "HTTP/1.1"

    def send_head(self) -> Any:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not asked or not path.is_file():
            return super().send_head()
        content = path.read_bytes()
        start, stop = int(asked[1]), min(int(asked[2] or len(content)) + 1, len(content))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Last-Modified", self.date_time_string(int(path.stat().st_mtime)))
        self.end_headers()
        return io.BytesIO(content[start:stop])

    def copyfile(self, source: Any, outputfile: BinaryIO) -> None:  # type: ignore[override]
        try:
            super().copyfile(source, outputfile)
        except ConnectionError:
            """Who only looks at the headers leaves."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing on the terminal."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder over HTTP."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Ranges, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()
