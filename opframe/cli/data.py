"""`opframe data`: look at data and prepare them. Everything slow is imported by the command that needs it."""

from __future__ import annotations

import argparse
import os
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from opframe_registry import ConfigError, discover

if TYPE_CHECKING:
    from opframe.files.shards import Shard
    from opframe.tools.selection import Part, Selection
    from opframe.tools.work import Pool

BAD = 2
"""Exit code for data that should not be used."""


def add_data(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `data` and what it can do to the command line."""
    data = commands.add_parser("data", help="look at data, check them, pack them, measure how fast they are read")
    data.set_defaults(group=data)
    actions = data.add_subparsers(metavar="ACTION")
    info = actions.add_parser("info", help="what datasets are, or which component reads what lies at a path")
    info.add_argument("where", metavar="CONFIG_OR_PATH", help="a config (.toml), or a file, folder or URL of data")
    info.set_defaults(command=_info)
    check = actions.add_parser("check", help="look at every value of every trajectory")
    check.add_argument("config", type=Path)
    check.add_argument(
        "--jobs", type=positive, metavar="N", help="processes (default: one for each core, fewer for small data)"
    )
    check.add_argument("--out", type=Path, metavar="FOLDER", help="write check.md and check.json there")
    check.set_defaults(command=_check)
    pack = actions.add_parser("pack", help="write datasets in the order in which training reads them")
    pack.add_argument("config", type=Path)
    pack.add_argument(
        "folder",
        type=Path,
        metavar="DST",
        help="folder for the packed files; only those whose sources have changed are replaced",
    )
    pack.add_argument("--only", action="append", default=[], metavar="LABEL", help="only this dataset; may be repeated")
    pack.add_argument("--resize", action="store_true", help="put training data on the grid of the config")
    pack.add_argument("--compress", choices=["gzip"], help="smaller and slower to read")
    pack.set_defaults(command=_pack)
    statistics = actions.add_parser("statistics", help="compute what the data of a run are normalised by")
    statistics.add_argument("config", type=Path)
    statistics.set_defaults(command=_statistics)
    for command in (check, pack, statistics):
        _add_sharing(command)
    bench = actions.add_parser("bench", help="how fast training data are read")
    bench.add_argument("config", type=Path)
    bench.add_argument("--samples", type=positive, default=64, metavar="N", help="windows of a round (default: 64)")
    bench.add_argument("--rounds", type=positive, default=5, metavar="N", help="rounds, of which the median counts")
    bench.add_argument("--json", action="store_true", help="print JSON")
    bench.set_defaults(command=_bench)
    fetch = _add_fetch(actions)
    for command in (info, check, pack, statistics, bench, fetch):
        command.add_argument(
            "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="override, as a.b=c"
        )


def _add_fetch(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    fetch = actions.add_parser("fetch", help="download data, going on where a download stopped")
    fetch.add_argument("what", metavar="CONFIG_OR_URL", help="a config (.toml) with [[files]], or a file's address")
    fetch.add_argument("--only", action="append", default=[], metavar="LABEL", help="only this dataset of the config")
    fetch.add_argument("--to", type=Path, metavar="FOLDER", help="where a file with this address goes")
    for algorithm in ("sha256", "md5"):
        fetch.add_argument(f"--{algorithm}", metavar="HEX", help=f"its {algorithm}, to be verified")
    fetch.set_defaults(command=_fetch)
    return fetch


def _add_sharing(command: argparse.ArgumentParser) -> None:
    sharing = command.add_mutually_exclusive_group()
    sharing.add_argument(
        "--shard", type=_shard, metavar="I/N", help="do one of N parts, as in a job array; --merge puts them together"
    )
    sharing.add_argument("--merge", action="store_true", help="put together what --shard 1/N to N/N have left")
    sharing.add_argument("--dask", metavar="ADDRESS", help="have the workers of a Dask cluster do it")


def _shard(text: str) -> Shard:
    from opframe.files.shards import Shard

    try:
        return Shard.read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _pool(arguments: argparse.Namespace, jobs: int = 1) -> AbstractContextManager[Pool | None]:
    from opframe.tools.work import cluster, processes

    return processes(jobs) if arguments.dask is None else cluster(arguments.dask)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def positive(text: str) -> int:
    """A number of things that the command line is given."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of 1 or more")
    return int(text)


def _info(arguments: argparse.Namespace) -> int:
    catalog, console = discover(), Console()
    from opframe.tools.info_report import show, show_path
    from opframe.tools.selection import load_selection

    if not arguments.where.endswith(".toml"):
        return 0 if show_path(arguments.where, catalog, console) else BAD
    selection = load_selection(Path(arguments.where), catalog, arguments.overrides)
    shown = [show(component, None, selection, console) for component in selection.datasets]
    shown += [show(component, ["test"], selection, console) for component in selection.zero_shot]
    return 0 if all(shown) else BAD


def _check(arguments: argparse.Namespace) -> int:
    from opframe.console import Bar, counted
    from opframe.tools import audit_shards
    from opframe.tools.audit import audit, tasks_of, worthwhile_jobs
    from opframe.tools.audit_report import show, write

    console, folder = Console(), arguments.out
    if (arguments.shard or arguments.merge) and folder is None:
        raise ConfigError(f"{'--shard' if arguments.shard else '--merge'} needs --out FOLDER, the same for all shards")
    if arguments.jobs and (arguments.dask or arguments.merge):
        raise ConfigError(f"--jobs does not go with {'--dask' if arguments.dask else '--merge'}; leave it out")
    parts, _ = _parts(arguments, console)
    total = len(tasks_of(parts))
    if arguments.shard:
        share = len(arguments.shard.share(range(total)))
        with Bar(console, "checking", share) as bar, _pool(arguments, min(arguments.jobs or 1, share)) as pool:
            audit_shards.look_at_share(parts, arguments.shard, folder, pool, bar)
        done = f"shard {arguments.shard}: {counted(share, 'trajectory')} of {total} looked at"
        console.print(f"{done}; --merge says what was found", highlight=False, soft_wrap=True)
        return 0
    if arguments.merge:
        audits = audit_shards.merged(parts, folder)
    else:
        jobs = min(arguments.jobs or worthwhile_jobs(parts, _processors()), total)
        with Bar(console, "checking", total) as bar, _pool(arguments, jobs) as pool:
            audits = audit(parts, pool, bar)
    show(audits, console)
    if folder is not None:
        write(audits, folder)
        console.print(f"written: {folder / 'check.md'}", highlight=False, soft_wrap=True)
    if arguments.merge:
        audit_shards.forget(folder)
    return BAD if any(found.bad for found in audits) else 0


def _pack(arguments: argparse.Namespace) -> int:
    from opframe.console import bytes_in_words
    from opframe.tools.info_report import show_toml
    from opframe.tools.packing import pack, pack_merged, pack_share
    from opframe.tools.packing_plan import plan, tables
    from opframe.tools.recognition import toml

    console = Console()
    parts, selection = _parts(arguments, console)
    if arguments.resize and selection.data is None:
        raise ConfigError(f"{arguments.config}: --resize needs data.grid, which it does not set")
    grid = selection.data.grid if arguments.resize and selection.data else None
    packings = plan(parts, arguments.folder, grid, arguments.compress is not None)
    if arguments.shard:
        for packing in packings:
            words = "is written" if pack_share(packing, arguments.shard, console) else "was there already"
            console.print(f"{packing.path}: shard {arguments.shard} {words}", highlight=False, soft_wrap=True)
        return 0
    with _pool(arguments) as pool:
        for packing in packings:
            made = pack_merged(packing, console) if arguments.merge else pack(packing, console, pool)
            words = f"{'written' if made else 'was there already'}, {bytes_in_words(packing.path.stat().st_size)}"
            console.print(f"{packing.path}: {words}", highlight=False, soft_wrap=True)
    console.print("use these tables in place of those of the config:", highlight=False)
    evaluated = {component.title for component in selection.zero_shot}
    for key, wanted in (("datasets", False), ("zero_shot", True)):
        chosen = [packing for packing in packings if (packing.part.title in evaluated) is wanted]
        if chosen:
            show_toml(toml(tables(chosen, str(arguments.folder.resolve())), key), console)
    return 0


def _statistics(arguments: argparse.Namespace) -> int:
    from opframe.run.assembly import all_statistics
    from opframe.run.experiment import load_experiment
    from opframe.tools.selection import prepare
    from opframe.tools.statistics import compute, show

    console = Console()
    experiment = load_experiment(arguments.config, discover(), arguments.overrides)
    prepare((*experiment.datasets, *experiment.zero_shot), Path(experiment.data.cache), console)
    every = all_statistics(experiment)
    if not every:
        console.print(f"normalizer.type = '{experiment.normalizer.name}': there is nothing to compute", highlight=False)
        return 0
    with _pool(arguments) as pool:
        compute(every, console, arguments.shard, arguments.merge, pool)
    if arguments.shard:
        titles = ", ".join(each.source.title for each in every)
        words = f"shard {arguments.shard} of {titles} is computed; --merge puts it together"
        console.print(words, highlight=False, soft_wrap=True)
        return 0
    show(every, console)
    return 0


def _bench(arguments: argparse.Namespace) -> int:
    import json

    import attrs

    from opframe.bench.loading import measure, rate_tables
    from opframe.console import Bar
    from opframe.run.experiment import load_experiment
    from opframe.tools.selection import prepare

    console, progress = Console(), Console(stderr=True)
    experiment = load_experiment(arguments.config, discover(), arguments.overrides)
    prepare((*experiment.datasets, *experiment.zero_shot), Path(experiment.data.cache), progress)
    with Bar(progress, "measuring", len(experiment.datasets) + 1, shown=progress.is_terminal) as bar:
        rates = measure(experiment, arguments.samples, arguments.rounds, bar)
    if arguments.json:
        print(json.dumps([{**attrs.asdict(rate), "share": rate.share} for rate in rates], indent=1))
        return 0
    for table in rate_tables(rates, console):
        console.print(table)
    console.print(
        "ceiling: of a dataset, as many bytes of its file read in sequence; of the mixture, its batches copied",
        style="dim",
        highlight=False,
    )
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    of_config = arguments.what.endswith(".toml") and "://" not in arguments.what
    wrong = ("to", "sha256", "md5") if of_config else ("only", "overrides")
    if given := [name for name in wrong if getattr(arguments, name)]:
        belongs = "the address of a file" if of_config else "a config"
        raise ConfigError(f"--{given[0].replace('overrides', 'set')} goes with {belongs}, not with {arguments.what}")
    return _fetch_files(arguments) if of_config else _fetch_one(arguments)


def _fetch_files(arguments: argparse.Namespace) -> int:
    from opframe.tools.catalogue import chosen, fetch_all
    from opframe.tools.selection import load_selection

    selection = load_selection(Path(arguments.what), discover(), arguments.overrides)
    return 0 if fetch_all(chosen(selection.files, arguments.only), Console()) else BAD


def _fetch_one(arguments: argparse.Namespace) -> int:
    from opframe.console import bytes_in_words
    from opframe.files.checksums import Checksum
    from opframe.files.fetching import Download, DownloadBar, fetch, name_in

    console = Console()
    given = [(name, getattr(arguments, name)) for name in ("sha256", "md5") if getattr(arguments, name)]
    if len(given) > 1:
        raise ConfigError("give one checksum: --sha256 or --md5")
    name = name_in(arguments.what)
    if arguments.to is None:
        raise ConfigError(f"give the folder for {name}: --to FOLDER")
    checksum = Checksum(algorithm=given[0][0], value=given[0][1].lower()) if given else None
    with closing(DownloadBar(console, name)) as bar:
        path = fetch(Download(url=arguments.what, path=arguments.to / name, checksum=checksum), bar.show)
    verified = f"{checksum.algorithm} is right" if checksum else "no checksum was given, so it is not verified"
    console.print(f"{path}: {bytes_in_words(path.stat().st_size)}, {verified}", highlight=False, soft_wrap=True)
    return 0


def _parts(arguments: argparse.Namespace, console: Console) -> tuple[list[Part], Selection]:
    """The opened splits of a config, prepared where they have to be, and the config."""
    from opframe.tools.selection import limited, load_selection, open_part, prepare, splits

    selection = load_selection(arguments.config, discover(), arguments.overrides)
    chosen = limited(selection, getattr(arguments, "only", ()))
    prepare(chosen, selection.cache, console)
    return [open_part(component, split, selection) for component, split in splits(selection, chosen)], selection
