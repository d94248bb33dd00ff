"""What a job gets beside its config: the plugins, the resolved text of the config, the console."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ampo_registry.discovery import Plugins
from ampo_registry.protocols import BuildContext
from rich.console import Console

from ampo_core.checked.build import build
from ampo_core.config.load import LoadedConfig
from ampo_core.config.machines import rank_in
from ampo_core.run.plugin_code import code_of


@dataclass(frozen=True, slots=True)
class Environment:
    """`config` is the resolved config in JSON types and `yaml` the same as text; `config_path` is the file it came
    from. `console` is where progress is shown. `allow_changes`: a run may go on with another config."""

    plugins: Plugins
    config: Mapping[str, Any]
    yaml: str
    config_path: Path
    trust_remote_code: bool
    console: Console
    allow_changes: bool

    @classmethod
    def of(
        cls,
        loaded: LoadedConfig,
        plugins: Plugins,
        *,
        trust_remote_code: bool = False,
        console: Console | None = None,
        allow_changes: bool = False,
    ) -> Environment:
        """The environment of a loaded config."""
        return cls(
            plugins,
            loaded.data,
            loaded.yaml,
            loaded.path,
            trust_remote_code,
            console or Console(quiet=rank_in(os.environ) > 0),
            allow_changes,
        )

    def code(self) -> dict[str, Any]:
        """What a manifest says of the code that lies where a person edits it (see plugin_code.py)."""
        return code_of(self.plugins, self.config)

    def build_context(
        self,
        *,
        run_dir: Path | None = None,
        model_path: str | None = None,
        dtype: str | None = None,
        tokenizer: Any = None,
        rank: int = 0,
        world_size: int = 1,
        resume_step: int | None = None,
    ) -> BuildContext:
        """The context in which a component of this config is built; seed and run name come from `run`."""
        run: Mapping[str, Any] = self.config.get("run") or {}
        return BuildContext(
            seed=int(run.get("seed", 0)),
            run_name=str(run.get("name", "")),
            run_dir=run_dir,
            model_path=model_path,
            dtype=dtype,
            tokenizer=tokenizer,
            rank=rank,
            world_size=world_size,
            config=self.config,
            trust_remote_code=self.trust_remote_code,
            resume_step=resume_step,
            make=build,
        )
