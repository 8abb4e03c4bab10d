"""The prompt modes that come with promptseg (paper section 2.2.1; Algorithm 1 for the clicks)."""

from promptseg.specs import PromptMode, Select

POINT_LARGEST = PromptMode(
    name="point_largest",
    needs="points",
    simulate="promptseg.prompts:point_largest",
    description="One point at the centre of the largest component (the paper's mode 1).",
)
POINT_EACH = PromptMode(
    name="point_each",
    needs="points",
    simulate="promptseg.prompts:point_each",
    description="One prompt with a point at the centre of each of the three largest components (mode 2).",
)
BOX_LARGEST = PromptMode(
    name="box_largest",
    needs="boxes",
    simulate="promptseg.prompts:box_largest",
    description="A tight box round the largest component (mode 3).",
)
BOX_EACH = PromptMode(
    name="box_each",
    needs="boxes",
    simulate="promptseg.prompts:box_each",
    description="A tight box round each of the three largest components, decoded one by one and united (mode 4).",
)
BOX_ALL = PromptMode(
    name="box_all",
    needs="boxes",
    simulate="promptseg.prompts:box_all",
    description="One tight box round the whole target (mode 5).",
)


def _clicks(guide: Select) -> PromptMode:
    return PromptMode(
        name=f"clicks_{guide}",
        needs="points",
        simulate="promptseg.prompts:next_click",
        steps=9,
        guide=guide,
        description=f"Nine corrective clicks (Algorithm 1), each placed after the {guide} mask of the one before.",
    )


CLICKS_FIRST = _clicks("first")
CLICKS_CONFIDENT = _clicks("confident")
CLICKS_ORACLE = _clicks("oracle")
