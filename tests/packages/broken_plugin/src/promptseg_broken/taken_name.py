"""A model that would run, under the name of a built-in one."""

from promptseg import ModelSpec

SPEC = ModelSpec(
    name="box_fill",
    family="floor",
    load="promptseg.models.reference.floors:load",
    licence="Apache-2.0",
    accepts=frozenset({"boxes"}),
    options={"shape": "box"},
)
