"""The built-in choices, one small file each, registered through the entry points that a third party uses."""
