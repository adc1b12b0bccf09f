"""Files of published layouts that cannot be used: every command says which one, and what the layout has."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from bad_files_support import OPENED, READ, A, Case, F, Make, cases, complain, named, nothing, raw, saved, smoke, well

FLOW = dict.fromkeys(("Vx", "Vy", "density", "pressure"), F)
NULL = h5py.Empty("f4")
REAL = "expected real numbers"
TEXT = f"holds other objects than numbers, {REAL}"
BAD_NPY = "cannot be read as a NumPy file; truncated or not NumPy? "


def layout(kind: str, name: str, make: Make | bytes, expected: str, commands: tuple[str, ...] = OPENED) -> Case:
    keys = {"type": kind, **({} if kind in ("cfdbench", "pdearena") else {"test": 2})}
    return Case(f"{kind}-{name}", raw("own.h5", make) if isinstance(make, bytes) else make, keys, expected, commands)


CASES = [
    layout(
        "pdebench", "other", named(u=F), "has none of PDEBench's layouts; found: u; expected Vx, density and pressure"
    ),
    layout(
        "pdebench", "groups-for-arrays", named(**{f"{name}__z": 1.0 for name in FLOW}), "has none of PDEBench's layouts"
    ),
    layout(
        "pdebench", "scalars", named(**dict.fromkeys(FLOW, 1.0)), "'Vx' has shape (); expected (N, T, X), (N, T, X, Y)"
    ),
    layout(
        "pdebench", "text", named(**{name: ["a"] for name in FLOW}), f"'Vx' holds other objects than numbers, {REAL}"
    ),
    layout("pdebench", "complex", named(**dict.fromkeys(FLOW, F + 1j)), f"'Vx' holds complex64, {REAL}"),
    layout("pdebench", "without-shape", named(**dict.fromkeys(FLOW, NULL)), "'Vx' is an empty dataset without a shape"),
    layout(
        "pdebench",
        "one-missing",
        named(Vx=F, density=F, pressure=F),
        "has no 'Vy'; compressible flow in 2 dimensions has",
    ),
    layout("pdebench", "one-group", named(Vx=F, density=F, pressure=F, Vy__z=1.0), "'Vy' is a group, not a dataset"),
    layout(
        "pdebench",
        "one-shorter",
        named(**{**FLOW, "Vy": F[:3]}),
        "'Vy' has shape (3, 8, 16, 16), expected (6, 8, 16, 16) as 'Vx'",
    ),
    layout(
        "pdebench",
        "times-no-numbers",
        named(**FLOW, **{"t-coordinate": ["a"] * 9}),
        f"'t-coordinate' holds other objects than numbers, {REAL}",
    ),
    layout("pdebench", "coefficient-group", named(tensor=F[:, :1], nu__k=1.0), "'nu' is a group, not a dataset"),
    layout(
        "pdebench",
        "velocity-scalar",
        named(velocity=1.0, particles=1.0, force=1.0),
        "have shapes (), () and (); expected (N, T, X, Y, 2)",
    ),
    layout(
        "pdebench",
        "group-missing",
        named(
            **{
                f"{number:04d}__{name}": values
                for number in (0, 1, 3)
                for name, values in (("data", A[0]), ("grid__x", np.arange(16.0)))
            }
        ),
        "group 0002 is missing; expected all from 0000 to 0003",
    ),
    layout("pdebench", "empty-folder", nothing("set", is_folder=True), "set holds no files *.h5 or *.hdf5"),
    layout("the_well", "no-groups", named(u=F), "not a file of The Well; expected the groups dimensions and t0_fields"),
    layout("the_well", "field-missing", well(None), "'t0_fields' names the field 'u', but there is no 't0_fields/u'"),
    layout("the_well", "too-few-axes", well(F[0]), "no field varies along y"),
    layout("the_well", "text", well(["a"]), f"'t0_fields/u' holds other objects than numbers, {REAL}"),
    layout("the_well", "without-shape", well(NULL), "'t0_fields/u' is an empty dataset without a shape"),
    layout("the_well", "file-for-folder", raw("set", b"some words"), "set: is a file, expected a folder"),
    layout(
        "pdearena",
        "empty-folder",
        nothing("set", is_folder=True),
        "set holds neither NavierStokes2D_",
    ),
    layout("pdearena", "one-missing", smoke(lambda split: {"u": F, "vx": F}), "vy"),
    layout(
        "pdearena",
        "too-few-axes",
        smoke(lambda split: dict.fromkeys(("u", "vx", "vy"), F[0])),
        "expected u, vx, vy of one shape (N, T, X, Y)",
    ),
    layout(
        "pdearena",
        "buoyancy-no-number",
        smoke(lambda split: {**dict.fromkeys(("u", "vx", "vy"), F), "buo_y": ["a"]}),
        f"buo_y' holds other objects than numbers, {REAL}",
    ),
    layout(
        "cfdbench",
        "other-folder",
        nothing("set", is_folder=True),
        "'set' is no problem of CFDBench; expected a folder named cavity",
    ),
    layout("cfdbench", "empty-folder", nothing("cavity", is_folder=True), "holds no cases"),
    layout("cfdbench", "empty-field", cases(u=b""), f"u.npy: {BAD_NPY}"),
    layout("cfdbench", "too-many-axes", cases(u=saved(F)), "u.npy: has shape (6, 8, 16, 16), expected (T, Y, X)"),
    layout("cfdbench", "complex", cases(u=saved(F[0] + 1j)), f"u.npy: the array holds complex64, {REAL}"),
    layout("cfdbench", "component-missing", cases(v=b"absent"), "v.npy: no such file", READ),
    layout(
        "cfdbench",
        "component-shorter",
        cases(v=saved(F[0, :4])),
        "v.npy: has shape (4, 16, 16), expected (8, 16, 16), as in u.npy",
        READ,
    ),
    layout("cfdbench", "about-missing", cases(about=None), "case.json: no such file"),
    layout("cfdbench", "about-no-json", cases(about=b"{"), "case.json: cannot be read as JSON"),
    layout("cfdbench", "about-binary", cases(about=b"\xff\xfe\x00"), "case.json: cannot be read as JSON"),
    layout("cfdbench", "about-list", cases(about=b"[]"), "case.json: expected a table of numbers, found list"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.name))
def test_a_bad_file_of_a_published_layout_is_named_by_every_command(case: Case, tmp_path: Path) -> None:
    complain(case, tmp_path)
