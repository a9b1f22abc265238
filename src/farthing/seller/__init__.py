"""The seller: which routes cost what, and the two flows around the work, `admit` and `conclude`. No I/O."""
