"""xray_chest: both lungs in chest X-rays (Montgomery and Shenzhen), the study's task Xray-Chest.

Montgomery gives a mask of the left lung and one of the right, which are put together: 138 images. The masks of Shenzhen
were drawn later by others, for 566 of its 662 images; an image without a mask is left out, since none was drawn. That
makes 704, as many as the study has. Images are 8-bit greys and are taken as they are.
"""

from __future__ import annotations

from promptseg.datasets_registry._study import CANONICAL, PICTURES
from promptseg.specs import Archive, DatasetSpec, Layout, Origin, Original, TaskSpec

_MONTGOMERY = r"(?P<id>MCUCXR_\d+_[01])"
_SHENZHEN = r"(?P<id>CHNCXR_\d+_[01])"

SPEC = DatasetSpec(
    name="xray_chest",
    modality="xray",
    load=CANONICAL,
    tasks=(TaskSpec(name="xray_chest", labels=(1,), target="both lungs", n_masks=704),),
    licence="images: NLM asks to be cited; lung masks of Shenzhen: CC BY-NC-SA 4.0",
    non_commercial=True,
    citation=(
        "Jaeger, S., Candemir, S., Antani, S., Wang, Y.-X.J., Lu, P.-X., Thoma, G.: Two public chest X-ray datasets "
        "for computer-aided screening of pulmonary diseases. Quantitative Imaging in Medicine and Surgery 4(6), 475 "
        "(2014); Stirenko, S., et al., lung masks of Shenzhen, doi:10.17632/8gf9vpkhgy.2"
    ),
    url="https://openi.nlm.nih.gov/faq#faq-tb-coll",
    layouts=(
        Layout(
            name="the two NLM archives and the lung masks of Shenzhen",
            expects="CXR_png/MCUCXR_N_D.png with leftMask/ and rightMask/, CXR_png/CHNCXR_N_D.png with "
            "CHNCXR_N_D_mask.png (566 of 662)",
            read=PICTURES,
            options={
                "parts": [
                    {
                        "name": "Montgomery",
                        "image": rf"CXR_png/{_MONTGOMERY}\.png",
                        "masks": [rf"leftMask/{_MONTGOMERY}\.png", rf"rightMask/{_MONTGOMERY}\.png"],
                        "case": "{id}",
                        "subject": "{id}",
                    },
                    {
                        "name": "Shenzhen",
                        "image": rf"CXR_png/{_SHENZHEN}\.png",
                        "masks": [rf"{_SHENZHEN}_mask\.png"],
                        "case": "{id}",
                        "subject": "{id}",
                        "without_mask": "left out",
                    },
                ]
            },
        ),
    ),
    original=Original(
        page="https://openi.nlm.nih.gov/faq#faq-tb-coll",
        how="No registration. Download both archives of NLM (https://openi.nlm.nih.gov/imgs/collections/ARCHIVE) and "
        "the lung masks of Shenzhen from https://doi.org/10.17632/8gf9vpkhgy.2 (or, with an account, Kaggle "
        "yoctoman/shcxr-lung-mask) into one folder. They need not be unpacked.",
        archives=(
            Archive(
                name="NLM-MontgomeryCXRSet.zip",
                sha256="54601e952315d8f67383e9202a6e145997ade429f54f7e0af44b4e158714f424",
            ),
            Archive(name="ChinaSet_AllFiles.zip"),
        ),
    ),
    mirrors=(
        Origin(
            host="hub",
            repo="OpenGVLab/SA-Med2D-20M",
            seen="Holds both sets among many, in an archive of eleven parts that must be joined as a whole.",
        ),
    ),
    study="Xray-Chest",
    n_masks=704,
    faults=("The masks of Shenzhen were drawn by others than those who published the images.",),
)
