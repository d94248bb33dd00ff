"""What a plugin's distribution asks for (`Requires-Dist`), and whether it is here."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_string
from importlib import metadata

OWN = "ampo-rl"


def own_version() -> str:
    """The installed version of AMPO, which is that of the plugin contract; empty where it is not installed."""
    return installed_version(OWN) or ""


def installed_version(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def contract_fault(distribution: str) -> str | None:
    """Why `distribution` was written for another version of AMPO than the one that is installed, or None."""
    version = own_version()
    for text in _asked(distribution, OWN) if version and distribution != OWN else ():
        if not _fits(text, version):
            return (
                f"asks for {text}, and {OWN} {version} is installed: install a version of {distribution} for that one, "
                f"or pip install '{text}'"
            )
    return None


def missing(distribution: str) -> list[str]:
    """The requirements of `distribution` that are not met here."""
    return [text for text in _asked(distribution) if not _fits(text)]


def _asked(distribution: str, only: str = "") -> Iterator[str]:
    """Its requirements that hold here, without those of extras."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        text = metadata.distribution(distribution).read_text("METADATA") or ""
    except metadata.PackageNotFoundError:
        return
    for line in message_from_string(text).get_all("Requires-Dist") or []:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:  # of metadata that no installer of today would take
            continue
        holds = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if holds and (not only or canonicalize_name(requirement.name) == only):
            yield f"{requirement.name}{requirement.specifier}"


def _fits(text: str, version: str | None = None) -> bool:
    """Whether a requirement is met; a release to come is what it will be."""
    from packaging.requirements import Requirement
    from packaging.version import InvalidVersion, Version

    requirement = Requirement(text)
    found = version or installed_version(requirement.name)
    if found is None:
        return False
    try:
        versions = (found, Version(found).base_version)
    except InvalidVersion:
        return True
    return any(requirement.specifier.contains(each, prereleases=True) for each in versions)
