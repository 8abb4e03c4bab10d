"""The study's figures: `numbers` and `cases` say what they show, `charts` and `pictures` draw it, `catalogue` all."""
