"""Click models that SAM is compared with: RITM, SimpleClick and FocalClick."""
