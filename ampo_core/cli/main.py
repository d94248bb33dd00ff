"""`ampo-run`: arguments, exit codes, and the words a person gets when something is wrong.

Exit codes: 0 done · 1 failed while running · 2 config, data or arguments are wrong, nothing was started ·
3 interrupted. Nothing here imports torch: that is a job's business.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ampo_registry.discovery import Plugins, discover
from ampo_registry.errors import AmpoError, ConfigError, PluginError
from rich.console import Console

from ampo_core.cli.listing import show_plugin, show_plugins
from ampo_core.cli.output import accept_any_text, shows_unicode
from ampo_core.config.load import LoadedConfig, load_config
from ampo_core.config.machines import rank_in
from ampo_core.config.schema import config_schema
from ampo_core.config.yaml_source import dump_yaml
from ampo_core.data.preview import check_first_rows
from ampo_core.jobs.table import run_job
from ampo_core.run.environment import Environment
from ampo_core.run.interrupt import INTERRUPTED, terminating
from ampo_core.scaffold.write import write_plugin

INTERNAL = 1
_WHAT_HAPPENED = {1: "the run failed", 2: "error", INTERRUPTED: "interrupted"}
_PIPED_WIDTH = 160


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ampo-run` with `argv` and return its exit code."""
    accept_any_text()
    arguments = _parser().parse_intermixed_args(argv)
    try:
        with terminating():
            return _dispatch(arguments)
    except AmpoError as error:
        if arguments.debug:
            traceback.print_exc()
        print(f"ampo-run: {_WHAT_HAPPENED[error.exit_code]}{_which_rank()}\n{error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("ampo-run: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BaseException as error:  # SystemExit too: what ends a run in the middle never ends it with 0
        met = error.__context__ if isinstance(error, SystemExit) else error  # rich makes an exit of a broken pipe
        if isinstance(met, BrokenPipeError):
            return _no_reader(arguments)
        traceback.print_exc()
        print("ampo-run: this is a fault of AMPO or of a plugin, not of your config; please report it", file=sys.stderr)
        return INTERNAL


def _no_reader(arguments: argparse.Namespace) -> int:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if arguments.config is not None and not arguments.check and arguments.sample is None:
        print("ampo-run: what reads its output went away; run the same command again to go on", file=sys.stderr)
    return INTERNAL


def _which_rank() -> str:
    rank = rank_in(os.environ)
    return f" (rank {rank})" if rank else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ampo-run",
        description="Run what a config declares: train, sft, evaluate, prepare, pool, pipeline or suite.",
        epilog="exit codes: 0 done, 1 failed while running, 2 config, data or arguments are wrong, 3 interrupted",
        allow_abbrev=False,
    )
    parser.add_argument("config", nargs="?", metavar="CONFIG.yaml", help="what to run")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="override a key, e.g. training.steps=10")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--check", action="store_true", help="validate, print the resolved config and its warnings, run nothing"
    )
    instead.add_argument(
        "--plugins", nargs="?", const="", metavar="NAME", help="list the components by kind, or the options of one"
    )
    instead.add_argument("--schema", action="store_true", help="print the JSON Schema of a config, plugins included")
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        type=Path,
        metavar="FILE.py",
        help="load a plugin from a file; may be repeated",
    )
    instead.add_argument(
        "--new-plugin", nargs=2, metavar=("KIND", "NAME"), help="write a plugin to start from into ./ampo-NAME"
    )
    parser.add_argument(
        "--allow-changes", action="store_true", help="go on with a run although its config, versions or data changed"
    )
    instead.add_argument(
        "--report",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="write the report of a run, a pipeline or a suite (RUN/report.html), or one that compares several runs",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where --report writes")
    instead.add_argument(
        "--sample",
        type=int,
        metavar="N",
        help="show N questions as the model reads them, with responses, rewards and guidance; train nothing",
    )
    parser.add_argument("--file", type=Path, metavar="FILE.md", help="where --sample writes the same as Markdown")
    parser.add_argument("--trust-remote-code", action="store_true", help="let models bring their own code")
    parser.add_argument("--debug", action="store_true", help="show a traceback for every error")
    parser.add_argument("--version", action="version", version=f"ampo {_version()}")
    return parser


def _version() -> str:
    try:
        return version("ampo-rl")
    except PackageNotFoundError:
        return "unknown (not installed)"


def _dispatch(arguments: argparse.Namespace) -> int:
    if arguments.report or arguments.out:
        return _report(arguments)
    plugins = discover(arguments.plugin)
    if arguments.schema:
        print(json.dumps(config_schema(plugins.catalog), indent=2, ensure_ascii=not shows_unicode()))
        return 0
    if arguments.plugins is not None:
        return _list(arguments.plugins, plugins)
    if arguments.file is not None and arguments.sample is None:
        raise ConfigError("--file says where --sample writes: ampo-run CONFIG.yaml --sample N --file FILE.md")
    if arguments.new_plugin is not None:
        if arguments.config is not None:
            raise ConfigError(f"--new-plugin takes KIND and NAME and no config, found {arguments.config!r} beside them")
        kind, name = arguments.new_plugin
        return _new_plugin(kind, name, plugins)
    if arguments.config is None:
        raise ConfigError("which config? Usage: ampo-run CONFIG.yaml [KEY=VALUE ...]; more with --help")
    if "=" in arguments.config and not Path(arguments.config).exists():
        raise ConfigError(f"the config comes first, found {arguments.config!r}")
    loaded = load_config(arguments.config, arguments.overrides, plugins)
    if arguments.check:
        return _check(loaded, plugins)
    if arguments.sample is not None:
        return _sample(loaded, plugins, arguments)
    return _run(loaded, plugins, arguments)


def _report(arguments: argparse.Namespace) -> int:
    from ampo_core.report.build import write_report

    if not arguments.report:
        raise ConfigError("--out says where --report writes; which runs? Usage: ampo-run --report RUN [RUN ...]")
    # What stands between the runs and the option is taken for a config.
    if arguments.config is not None:
        raise ConfigError(f"--report takes run folders only, found {arguments.config!r} beside them")
    print(write_report(arguments.report, arguments.out))
    return 0


def _list(name: str, plugins: Plugins) -> int:
    console = Console() if sys.stdout.isatty() else Console(width=_PIPED_WIDTH)
    if name:
        fine = show_plugin(name, plugins, console)
    else:
        show_plugins(plugins, console)
        fine = not plugins.broken
    _warn(*plugins.slow)
    return 0 if fine else PluginError.exit_code


def _new_plugin(kind: str, name: str, plugins: Plugins) -> int:
    folder = write_plugin(kind, name, plugins.catalog, Path()).name
    print(f"wrote {folder}: the {kind} {name}, its test and README.md; next:")
    print(f"  pip install -e '{folder}[test]'\n  ampo-run --plugins {name}\n  pytest {folder}")
    return 0


def _unused(plugins: Plugins) -> tuple[str, ...]:
    """What is here, or was named with --plugin, and does nothing for the config."""
    return (*plugins.idle, *(f"broken plugin, not used here: {plugin}" for plugin in plugins.broken))


def _warn(*texts: str) -> None:
    for text in texts:
        print(f"warning: {text}", file=sys.stderr)


def _check(loaded: LoadedConfig, plugins: Plugins) -> int:
    _warn(*loaded.blockers, *loaded.warnings, *check_first_rows(loaded.reads), *_unused(plugins), *plugins.slow)
    print(loaded.yaml if shows_unicode() else dump_yaml(loaded.data, unicode=False), end="")
    return 0


def _sample(loaded: LoadedConfig, plugins: Plugins, arguments: argparse.Namespace) -> int:
    from ampo_core.jobs.sample.job import sample

    _warn(*loaded.warnings, *_unused(plugins))
    check_first_rows(loaded.reads)
    environment = Environment.of(loaded, plugins, trust_remote_code=arguments.trust_remote_code)
    sample(loaded, environment, arguments.sample, arguments.file)
    return 0


def _run(loaded: LoadedConfig, plugins: Plugins, arguments: argparse.Namespace) -> int:
    if rank_in(os.environ) == 0:
        _warn(*loaded.warnings, *_unused(plugins))
    loaded.require_ready()
    check_first_rows(loaded.reads)
    environment = Environment.of(
        loaded, plugins, trust_remote_code=arguments.trust_remote_code, allow_changes=arguments.allow_changes
    )
    try:
        run_job(loaded.job, environment)
    except KeyboardInterrupt:
        left = loaded.job.left_behind() if loaded.job.run.folder.exists() else "nothing was written"
        print(f"ampo-run: interrupted; {left}", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
