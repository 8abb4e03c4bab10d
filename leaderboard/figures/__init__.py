"""The study's figures: `numbers` and `cases` choose what they show, `charts` and `pictures` draw, `catalogue` lists."""
