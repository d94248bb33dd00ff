"""The two pluggy markers: `hookspec` declares a hook (registry only), `hookimpl` implements one (plugins)."""

import pluggy

PROJECT = "ampo"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
