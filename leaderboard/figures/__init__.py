"""The study's figures, of results: `numbers` says what they show, `charts` and `pictures` draw it, `catalogue` which."""
