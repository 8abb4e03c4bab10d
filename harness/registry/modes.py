"""The built-in prompt modes: the paper's (section 2.2.1; Algorithm 1 for the clicks), RITM's, SAM's."""

from promptseg.specs import MaskChoice, PromptMode

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


def _clicks(guide: MaskChoice) -> PromptMode:
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

NOC = PromptMode(
    name="noc",
    needs="points",
    simulate="promptseg.prompts:ritm_click",
    steps=20,
    guide="confident",
    when="asked",
    description="Twenty corrective clicks as RITM's evaluation places them, for the number of clicks (NoC) to an IoU.",
)
"""All 20 clicks are given, whatever IoU is reached: the mean IoU after each click is one over all cases. The number of
clicks to an IoU is read off the curve; RITM's evaluation, which ends a case there, counts the same."""


def _everything(points_a_side: int) -> PromptMode:
    return PromptMode(
        name="everything" if points_a_side == 32 else f"everything_{points_a_side}",
        needs="everything",
        simulate="promptseg.prompts:grid",
        grid=points_a_side,
        when="named",
        description=(
            f"A grid of {points_a_side} x {points_a_side} points over the image, one to a prompt, filtered as SAM's "
            "authors do it; scored by the best-matching mask and by coverage."
        ),
    )


EVERYTHING = _everything(32)
EVERYTHING_64 = _everything(64)
EVERYTHING_128 = _everything(128)
