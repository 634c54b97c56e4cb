"""How the objects that a service answers are described: typed dictionaries whose docstrings reach `/openapi.json`."""

from pydantic import ConfigDict, with_config

documented = with_config(ConfigDict(use_attribute_docstrings=True, extra="forbid"))
"""Decorates a TypedDict: the string under a field is the field's description."""
