"""Classical methods that need no training: GrabCut, random walker, region growing."""
