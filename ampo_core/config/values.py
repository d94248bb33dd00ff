"""Values that several blocks check alike: paths, names that become folders, seeds."""

from __future__ import annotations

import os
import re
from typing import Annotated

from ampo_registry.text import FILE_NAME, MAX_NAME
from pydantic import AfterValidator, Field

_MAX_PART, _MAX_PATH = 255, 4095
_VARIABLE = re.compile(r"\$([A-Za-z_]\w*|\{\w+\})")


def written_path(text: str) -> str:
    """`text` with `~` expanded. Raises ValueError for what no file system takes, and for environment variables,
    which nothing replaces."""
    if not text:
        raise ValueError("a path cannot be empty; '.' is the folder itself")
    if "\0" in text:
        raise ValueError("a path cannot hold the character NUL")
    if (variable := _VARIABLE.search(text)) is not None:
        home = "write ~ for the home folder" if "HOME" in variable[0] else "write the path itself"
        raise ValueError(f"environment variables are not filled in here, found {variable[0]}; {home}")
    path = os.path.expanduser(text)
    if path.startswith("~"):
        user = text.partition("/")[0]
        raise ValueError(f"there is no home folder {user}; a folder of that name is ./{user}")
    try:
        parts = [os.fsencode(part) for part in path.split("/")]
    except UnicodeEncodeError:
        raise ValueError("this machine's encoding of file names does not have all of its characters") from None
    longest = max(map(len, parts))
    if longest > _MAX_PART:
        raise ValueError(f"a name of {longest} bytes stands in it, and file systems take {_MAX_PART} at most")
    if sum(map(len, parts)) + len(parts) > _MAX_PATH:
        raise ValueError(f"a path of more than {_MAX_PATH} bytes is too long for the system")
    return path


PathText = Annotated[str, AfterValidator(written_path)]
Name = Annotated[str, Field(pattern=rf"^{FILE_NAME}$", max_length=MAX_NAME)]
Seed = Annotated[int, Field(ge=0, le=2**64 - 1)]
"""What PyTorch's generators take."""
