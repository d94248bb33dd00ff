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
from ampo_registry.errors import AmpoError, ConfigError, NotYetError
from rich.console import Console

from ampo_core.config.jobs import Job, PipelineJob, SuiteJob
from ampo_core.config.load import LoadedConfig, load_config
from ampo_core.config.not_yet import ALLOW_CHANGES, REPORT
from ampo_core.config.schema import config_schema
from ampo_core.environment import Environment
from ampo_core.jobs import run_job
from ampo_core.listing import show_plugin, show_plugins
from ampo_core.runfolder import check_free

INTERRUPTED = 3
INTERNAL = 1
_PIPED_WIDTH = 160


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ampo-run` with `argv` and return its exit code."""
    arguments = _parser().parse_intermixed_args(argv)
    try:
        return _dispatch(arguments)
    except AmpoError as error:
        if arguments.debug:
            traceback.print_exc()
        print(f"ampo-run: {'error' if error.exit_code == 2 else 'the run failed'}\n{error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERNAL
    except KeyboardInterrupt:
        print("ampo-run: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception:
        traceback.print_exc()
        print("ampo-run: this is a fault of AMPO or of a plugin, not of your config; please report it", file=sys.stderr)
        return INTERNAL


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ampo-run",
        description="Run what a config declares: train, sft, evaluate, prepare, pool, pipeline or suite.",
        epilog="exit codes: 0 done, 1 failed while running, 2 config, data or arguments are wrong, 3 interrupted",
        allow_abbrev=False,
    )
    parser.add_argument("config", nargs="?", metavar="CONFIG.yaml", help="what to run")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="override a key, e.g. training.steps=10")
    parser.add_argument(
        "--check", action="store_true", help="validate, print the resolved config and its warnings, run nothing"
    )
    parser.add_argument(
        "--plugins", nargs="?", const="", metavar="NAME", help="list the components by kind, or the options of one"
    )
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of a config, plugins included")
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        type=Path,
        metavar="FILE.py",
        help="load a plugin from a file; may be repeated",
    )
    parser.add_argument("--allow-changes", action="store_true", help="resume with another config (later release)")
    parser.add_argument("--report", nargs="+", metavar="RUN", help="write a report of runs (later release)")
    parser.add_argument("--trust-remote-code", action="store_true", help="let models bring their own code")
    parser.add_argument("--debug", action="store_true", help="show a traceback for every error")
    parser.add_argument("--version", action="version", version=f"ampo {_version()}")
    return parser


def _version() -> str:
    try:
        return version("ampo")
    except PackageNotFoundError:
        return "unknown (not installed)"


def _dispatch(arguments: argparse.Namespace) -> int:
    if arguments.report:
        raise NotYetError(REPORT)
    plugins = discover(arguments.plugin)
    if arguments.schema:
        print(json.dumps(config_schema(plugins.catalog), indent=2, ensure_ascii=False))
        return 0
    if arguments.plugins is not None:
        return _list(arguments.plugins, plugins)
    if arguments.config is None:
        raise ConfigError("which config? Usage: ampo-run CONFIG.yaml [KEY=VALUE ...]; more with --help")
    if "=" in arguments.config and not Path(arguments.config).exists():
        raise ConfigError(f"the config comes first, found {arguments.config!r}")
    loaded = load_config(arguments.config, arguments.overrides, plugins)
    if arguments.check:
        return _check(loaded, arguments.allow_changes)
    if arguments.allow_changes:
        raise NotYetError(ALLOW_CHANGES)
    return _run(loaded, plugins, arguments.trust_remote_code)


def _list(name: str, plugins: Plugins) -> int:
    console = Console() if sys.stdout.isatty() else Console(width=_PIPED_WIDTH)
    if name:
        show_plugin(name, plugins, console)
    else:
        show_plugins(plugins, console)
    return 0


def _check(loaded: LoadedConfig, allow_changes: bool) -> int:
    for text in (*loaded.blockers, *loaded.warnings, *([ALLOW_CHANGES] if allow_changes else [])):
        print(f"warning: {text}", file=sys.stderr)
    print(loaded.yaml, end="")
    return 0


def _run(loaded: LoadedConfig, plugins: Plugins, trust_remote_code: bool) -> int:
    for text in loaded.warnings:
        print(f"warning: {text}", file=sys.stderr)
    loaded.require_ready()
    folder = Path(loaded.job.run.dir) / loaded.job.run.name
    if not isinstance(loaded.job, (PipelineJob, SuiteJob)):
        check_free(folder)
    try:
        run_job(loaded.job, Environment.of(loaded, plugins, trust_remote_code=trust_remote_code))
    except KeyboardInterrupt:
        print(f"ampo-run: interrupted; {_left_behind(loaded.job, folder)}", file=sys.stderr)
        return INTERRUPTED
    return 0


def _left_behind(job: Job, folder: Path) -> str:
    """What an interrupted run leaves on disk."""
    if not folder.exists():
        return "nothing was written"
    if isinstance(job, PipelineJob):
        return f"what was written stands in {folder}; run it again and finished stages are kept"
    checkpoints = sorted((folder / "checkpoints").glob("step-*"))
    kept = f", the last checkpoint is {checkpoints[-1]}" if checkpoints else ", without a checkpoint"
    return (
        f"what was written stands in {folder}{kept}. This release cannot resume: "
        "choose another run.name or remove the folder to start over"
    )


if __name__ == "__main__":
    sys.exit(main())
