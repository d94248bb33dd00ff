"""Functions of the files that `--plugin` names: a config calls one by its name, and code never enters by YAML."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol, cast

from pluggy import HookimplMarker
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from ampo_registry.errors import PluginError
from ampo_registry.specs import ComponentSpec

NO_FILES = "functions are looked up in the files that `--plugin FILE.py` names, none was"


@dataclass(frozen=True)
class PluginFunction:
    """A function of a plugin file; as the type of an option, `compute_score` or, where several files have one,
    `FILE.compute_score`. It can be pickled: a worker process imports the file again under the same name."""

    module: str
    name: str
    file: str = field(default="", compare=False)
    written: str = field(default="", compare=False)

    def load(self) -> Callable[..., object]:
        """The function itself. Raises PluginError where its file does not have it any more."""
        try:
            return cast(Callable[..., object], getattr(importlib.import_module(self.module), self.name))
        except (ImportError, AttributeError) as error:
            raise PluginError(f"{self.file or self.module} brings no function {self.name}: {error}") from error

    def __str__(self) -> str:
        return f"{self.name} of {self.file or self.module}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            cls._resolve, serialization=core_schema.plain_serializer_function_ser_schema(_written)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string"}

    @classmethod
    def _resolve(cls, value: object, info: ValidationInfo) -> PluginFunction:
        if isinstance(value, PluginFunction):
            return value
        if not isinstance(value, str):
            raise ValueError(f"expected the name of a function, found {value!r}")
        catalog = cast(_Catalog | None, cast(dict[str, object], info.context or {}).get("catalog"))
        if catalog is None:
            raise ValueError(f"no function {value}: {NO_FILES}")
        return catalog.function(value)


class _Catalog(Protocol):
    """What knows the files: the catalog, in the context that a config is read with."""

    def function(self, name: str) -> PluginFunction: ...


@dataclass(frozen=True, slots=True)
class FunctionFile:
    """What a file has that can be called: functions of `own`, and `others` that it has imported. `plain`: it has some,
    no hook, and nothing that would need one."""

    module: str
    file: str
    own: tuple[str, ...]
    others: tuple[str, ...]
    plain: bool

    @classmethod
    def of(cls, module: ModuleType, file: str, hooks: tuple[str, ...]) -> FunctionFile:
        """What is public in `module`, the hooks left out."""
        public = {name: value for name, value in vars(module).items() if name[0] != "_" and name not in hooks}
        named = [
            name for name, value in public.items() if callable(value) and not isinstance(value, type | HookimplMarker)
        ]
        own = tuple(name for name in named if getattr(public[name], "__module__", "") == module.__name__)
        specs = any(
            isinstance(value, type) and issubclass(value, ComponentSpec) and value.__module__ == module.__name__
            for value in public.values()
        )
        plain = bool(named) and not specs and not any(name in hooks for name in vars(module))
        return cls(module.__name__, file, own, tuple(name for name in named if name not in own), plain)

    def has(self, name: str) -> bool:
        """Whether `name`, as a config may write it, could be that of a function here."""
        module, _, short = name.rpartition(".")
        return module in ("", self.module) and short in (*self.own, *self.others)

    def __str__(self) -> str:
        return f"{self.file}: {', '.join(self.own or self.others) or 'none'}"


def _written(value: object) -> object:
    return (value.written or value.name) if isinstance(value, PluginFunction) else value
