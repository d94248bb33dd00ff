"""Whether the options of a spec survive the resolved config: what is written there is read again as the same."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from ampo_registry.errors import PluginError
from ampo_registry.faults import describe, is_interruption
from ampo_registry.specs import ComponentSpec, build_options


def check_options(spec: type[ComponentSpec]) -> None:
    """Raise PluginError for an option with a second name, or whose default cannot be written in YAML."""
    for name, field in spec.model_fields.items():
        other = field.alias or field.validation_alias or field.serialization_alias
        if other is not None:
            raise PluginError(
                f"{spec.__name__}: the option {name} has the alias {other!r}; the resolved config would print one of "
                "them and a run accept the other: an option has one name"
            )
        fault = None if field.default is PydanticUndefined else next(_unwritable(field.default), None)
        if fault is not None:
            raise PluginError(f"{spec.__name__}: the default of the option {name} {fault}")


def lost_option(spec: ComponentSpec, context: Mapping[str, object]) -> str | None:
    """What the resolved config does not keep of `spec`, which is read in `context` (its catalog), or None."""
    who, written = type(spec).__name__, dict[str, object]()
    try:
        written.update(build_options(spec))
        text = json.dumps(written, allow_nan=False)
        again = type(spec).model_validate_json(text, strict=True, context=dict(context))
        names = [name for name in type(spec).model_fields if getattr(again, name) != getattr(spec, name)]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = str(first["loc"][0]) if first["loc"] else ""
        found = f"the option {option} = {getattr(spec, option, None)!r:.80} stands as {written.get(option)!r:.80}"
        return f"{who}: {found} in the resolved config, and is refused when it is read again: {first['msg']}"
    except BaseException as error:  # validators and serializers of a plugin
        if is_interruption(error):
            raise
        return f"{who}: its options cannot be written into the resolved config: {describe(error)}"
    if names:
        found = f"{getattr(spec, names[0])!r:.80}, and is read again as {getattr(again, names[0])!r:.80}"
        return f"{who}: the resolved config does not keep the option {names[0]}: it is {found}"
    return None


def _unwritable(value: object) -> Iterator[str]:
    """What of a default YAML cannot say."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"is {value}, which the resolved config cannot hold; use None or a finite number"
    elif isinstance(value, bytes | bytearray) or (callable(value) and not isinstance(value, BaseModel)):
        what = "a function or class" if callable(value) else "bytes"
        yield f"is {what} ({value!r:.60}), which YAML cannot say; take a name in its place"
    elif isinstance(value, Mapping):
        for item in cast(Mapping[object, object], value).values():
            yield from _unwritable(item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in cast(Sequence[object], value):
            yield from _unwritable(item)
