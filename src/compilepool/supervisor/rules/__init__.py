"""The rules: which run goes where, and how many workers there are. Pure: no I/O and no clock."""
